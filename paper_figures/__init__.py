"""The figures of the benchmark, one module each, made from records alone.

    python -m paper_figures --params params.yaml --results results --out paper_figures/out

A figure's module says in its docstring what it shows and how to read it, in ``NEEDS`` which records it needs, and has
``figure(results)``, which is None where they are missing. Modules are imported when they are drawn: ``chains`` needs
torch, nothing else here does.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

FIGURES = (
    "reward_against_compute", "reward_against_seconds", "time_to_target", "forest", "frontier", "gradient_variance",
    "chain_length", "acting", "shortcut_fidelity", "samples", "chains",
)  # fmt: skip


def find(name: str) -> ModuleType:
    """The module of a figure. Raises KeyError for an unknown name."""
    if name not in FIGURES:
        raise KeyError(name)
    return import_module(f"{__name__}.{name}")

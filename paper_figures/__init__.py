"""The figures of the benchmark, one module each, made from records alone.

    python -m paper_figures --params params.yaml --results results --out paper_figures/out

A figure's module says in its docstring what it shows and how to read it, in ``NEEDS`` which records it needs, and has
``figure(results)``, which is None where they are missing. ``chains`` stands apart: it draws the methods' code,
which needs torch, and no records.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

FIGURES = (
    "forest", "reward_against_compute", "reward_against_seconds", "time_to_target", "frontier", "acting", "samples",
    "gradient_variance", "chain_length", "shortcut_fidelity", "shortcut_pictures",
)  # fmt: skip


def find(name: str) -> ModuleType:
    """The module of a figure. Raises KeyError for an unknown name."""
    if name not in FIGURES:
        raise KeyError(name)
    return import_module(f"{__name__}.{name}")

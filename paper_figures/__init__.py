"""The figures of the benchmark, one module each, made from records alone.

    python -m paper_figures --params params.yaml --results results --out docs/figures

A figure's module says in its docstring what it shows and how to read it, in ``NEEDS`` which records it needs, and has
``figure(results)``, which is None where they are missing; a set has ``figures(results)``, by name. ``SAVED``, where a
module has it: options of ``style.save``.
"""

from importlib import import_module
from types import ModuleType

RUNS = ("forest", "reward_against_compute", "reward_against_seconds", "time_to_target", "frontier", "acting", "samples")
PROBES = ("gradient_variance", "chain_length", "shortcut_fidelity", "shortcut_pictures")
FIGURES = (*RUNS, *PROBES, "chains")
SETS = ("methods",)  # of several figures each, in a folder of their own


def find(name: str) -> ModuleType:
    """The module of a figure. Raises KeyError for an unknown name."""
    if name not in (*FIGURES, *SETS):
        raise KeyError(name)
    return import_module(f"{__name__}.{name}")

"""Suites: a base model with its shortcut, rewards, prompts and oracle. A folder with a ``suite.py`` is a suite."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

from .interface import Suite, SuiteError

__all__ = ["Suite", "SuiteError", "find", "kind", "names"]


def names() -> list[str]:
    """The suites' names, which are the names of their folders."""
    here = Path(__file__).parent
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if (here / m.name / "suite.py").exists())


def find(name: str, **options) -> Suite:
    """A suite with its options, nothing of it loaded yet. KeyError for an unknown one."""
    return kind(name)(**options)


def kind(name: str) -> type[Suite]:
    """The class of a suite. KeyError for an unknown one."""
    if name not in names():
        raise KeyError(name)
    module = importlib.import_module(f"{__name__}.{name}.suite")
    (found,) = (
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Suite) and member.__module__ == module.__name__
    )
    return found

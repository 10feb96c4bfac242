"""Suites: a base model with its shortcut, rewards, prompts and oracle. A folder with a ``suite.py`` is a suite."""

import importlib
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
    classes = (member for member in vars(module).values() if isinstance(member, type) and issubclass(member, Suite))
    (found,) = (member for member in classes if member.__module__ == module.__name__)
    return found

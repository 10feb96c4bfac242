"""One file per method. The folder is scanned: a new file with a ``Method`` in it is a new method."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from .interface import Batch, DirectReward, Method, Update

__all__ = ["Batch", "DirectReward", "Method", "Update", "find", "names"]


def names() -> list[str]:
    """The methods' names, which are the names of their files."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "interface")


def find(name: str) -> type[Method]:
    """The class of a method; hyphens in the name are as good as underscores. KeyError for an unknown one."""
    name = name.replace("-", "_")
    if name not in names():
        raise KeyError(name)
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Method) and member.__module__ == module.__name__ and not inspect.isabstract(member)
    ]
    if len(classes) != 1:
        raise TypeError(f"methods/{name}.py must define exactly one method, found {len(classes)}")
    return classes[0]

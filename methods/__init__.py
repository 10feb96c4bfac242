"""One file per method. The folder is scanned: a new file with a ``Method`` in it is a new method.

Methods from elsewhere come by ``package.module:Class``, or by an installed package's entry point in the group
``benchmark.methods``, under the entry point's name. Asking for names imports no method, and so no torch.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .interface import Batch, DirectReward, Method, Update

__all__ = ["Batch", "DirectReward", "Method", "Update", "find", "names", "sources"]


def __getattr__(name: str):
    if name in __all__:  # of the interface: the rest is here
        return getattr(importlib.import_module(f"{__name__}.interface"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _own() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "interface")


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="benchmark.methods")}


def names() -> list[str]:
    """The methods' names: those of the files here, then those of installed packages."""
    return [*_own(), *sorted(set(_installed()) - set(_own()))]


def find(name: str) -> type[Method]:
    """The class of a method; hyphens in the name are as good as underscores.

    KeyError for an unknown name; ImportError or TypeError, with one clear line, for one that cannot be used.
    """
    from .interface import Method

    if ":" in name:
        return _load(name)
    own = name.replace("-", "_")
    if own not in _own():
        return _load(_installed()[name].value)
    module = importlib.import_module(f"{__name__}.{own}")
    classes = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Method) and member.__module__ == module.__name__ and not inspect.isabstract(member)
    ]
    if len(classes) != 1:
        raise TypeError(f"methods/{own}.py must define exactly one method, found {len(classes)}")
    return classes[0]


def _load(path: str) -> type[Method]:
    """The class at ``package.module:Class``."""
    from .interface import Method

    try:
        cls = EntryPoint("method", path, "benchmark.methods").load()
    except (ImportError, AttributeError, ValueError) as error:
        raise ImportError(f"method {path!r} cannot be imported as package.module:Class: {error}") from None
    if not (inspect.isclass(cls) and issubclass(cls, Method)) or inspect.isabstract(cls):
        raise TypeError(f"{path!r} is not a subclass of methods.Method or methods.DirectReward with all it needs")
    return cls


def sources(name: str) -> list[Path]:
    """The files that make a method: of its class and of every class that it inherits from, up to pydantic's."""
    own = [c for c in find(name).__mro__ if c.__module__.partition(".")[0] not in ("pydantic", "abc", "builtins")]
    return list(dict.fromkeys(Path(inspect.getfile(cls)) for cls in own))

"""Modules by the names that they had in version 0.1, which records, model cards and other people's code may know.

``import benchmark.reader`` gives ``benchmark.records.reader``; ``python -m benchmark.acting`` says what replaced it.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys

MOVED = {
    **{name: f"training.{name}" for name in ("cell", "trainer", "evaluation", "pictures", "jobs")},
    **{name: f"records.{name}" for name in ("reader", "results", "profile", "protocol")},
    **{"ledger": "diffusion.ledger", "claims": "findings.claims", "shortcut": "fidelity", "acting": "placement"},
}


MOVED = {f"{__package__}.{old}": f"{__package__}.{new}" for old, new in MOVED.items()}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec):
        module = importlib.import_module(MOVED[spec.name])
        self._own = module.__spec__
        return module

    def exec_module(self, module):
        module.__spec__ = self._own  # it has run, and keeps its own name

    def get_code(self, name):
        """What ``python -m`` runs."""
        return compile(f"raise SystemExit('{name} is now {MOVED[name]}: python -m {MOVED[name]} --help')", name, "exec")


sys.meta_path.append(_Finder())

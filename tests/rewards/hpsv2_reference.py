"""hpsv2's own scorer as the reference of a test, with what its 1.2.0 wheel lacks put in place while it is imported."""

from __future__ import annotations

import gzip
import importlib
import sys
import types
from pathlib import Path
from unittest import mock

import open_clip


def _open(path, *args, **options):
    """The wheel lacks CLIP's vocabulary; open_clip_torch ships the same file."""
    own = Path(open_clip.__file__).parent / Path(path).name
    return _gzip_open(path if Path(path).exists() else own, *args, **options)


_gzip_open = gzip.open


def scorer() -> types.ModuleType:
    """``hpsv2.img_score``."""
    # Imported there by mistake; the real one needs a display toolkit.
    sys.modules.setdefault("turtle", types.SimpleNamespace(forward=None))
    with mock.patch("gzip.open", _open):
        return importlib.import_module("hpsv2.img_score")

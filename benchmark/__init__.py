"""A reproducible benchmark of reward fine-tuning for text-to-image diffusion models."""

import os

# transformers greets every import with advice about torchvision, which nothing here uses.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from . import moved, torchvision_quirk  # noqa: F401  before anything imports torchvision

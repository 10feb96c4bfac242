"""torchvision beside a PyTorch that its compiled operators were not built for.

There ``import torchvision`` dies with "operator torchvision::nms does not exist", and takes transformers, peft and
diffusers with it. Nothing here calls those operators, so their schemas alone, defined just before torchvision
registers shapes for them, let the import pass. Where the compiled operators load, nothing is done.
"""

import importlib.abc
import sys

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Finder(importlib.abc.MetaPathFinder):
    library = None  # a torch.library.Library takes its definitions along when it is collected

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision._meta_registrations" and self.library is None:
            import torch

            if not hasattr(torch.ops.torchvision, "nms"):
                self.library = torch.library.Library("torchvision", "DEF")
                for operator in ("nms", "qnms"):
                    self.library.define(operator + _SCHEMA)
        return None  # the module itself is found as always


sys.meta_path.insert(0, _Finder())

"""What a run has spent: calls, images, floating-point operations.

Operations are counted once per kind of call with ``torch.utils.flop_counter`` on a batch of one and then added up,
so that a budget in operations is the same on every machine and counting costs nothing while training.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_aten = torch.ops.aten


# PyTorch has formulas for CUDA's attention kernels only; the CPU's would count as nothing.
CPU_FORMULAS = {
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *s, **_: sdpa_backward_flop_count(*s[:4]),
}


def count_operations(call: Callable[[], object]) -> int:
    """Floating-point operations (multiply and add count as two) of the matrix products in ``call()``."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a kernel of its own, without gradient, that the counter misses
    try:
        with FlopCounterMode(display=False, custom_mapping=CPU_FORMULAS) as counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


def measure(forward: Callable[[], torch.Tensor], inputs: list[torch.Tensor]) -> tuple[int, int]:
    """Operations of a call and of its backward pass to ``inputs`` (0 where there is none)."""
    results = []
    with torch.set_grad_enabled(bool(inputs)):
        operations = count_operations(lambda: results.append(forward()))
    if not inputs:
        return operations, 0
    return operations, count_operations(lambda: torch.autograd.grad(results[0].sum(), inputs, allow_unused=True))


Cost = Callable[[], tuple[int, int]]  # operations of a call and of its backward pass


@dataclasses.dataclass
class Ledger:
    """Calls are counted per image; a denoiser call with guidance counts twice, once per half.

    operations is in FLOP. Backward passes are counted when their forward call is made with gradient.
    """

    denoiser_forwards: int = 0
    denoiser_backwards: int = 0
    denoiser_recomputations: int = 0
    decoder_forwards: int = 0
    decoder_backwards: int = 0
    reward_forwards: int = 0
    reward_backwards: int = 0
    images: int = 0
    operations: int = 0

    def __post_init__(self):
        self._costs: dict[Hashable, tuple[int, int]] = {}
        self._paused = False
        self._kinds: Counter | None = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is called inside is off the clock: nothing is entered."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    @contextlib.contextmanager
    def kinds(self) -> Iterator[Counter]:
        """Count the calls made inside by their kind: (part, images, key, backward). They are entered as always."""
        self._kinds = found = Counter()
        try:
            yield found
        finally:
            self._kinds = None

    def call(self, part: str, images: int, key: Hashable, cost: Cost, backward: bool, recomputed: bool = False) -> None:
        """Enter a call of ``part`` on ``images`` images. ``cost()`` measures one image, once per ``key``."""
        if self._paused:
            return
        if (part, key) not in self._costs:
            self._costs[part, key] = cost()
        forward, back = self._costs[part, key]
        self.operations += images * (forward * (1 + recomputed) + back * backward)
        entered = {"forwards": True, "backwards": backward, "recomputations": recomputed}
        for name in (f"{part}_{kind}" for kind, made in entered.items() if made):
            setattr(self, name, getattr(self, name) + images)
        self.images += images * (part == "decoder")
        if self._kinds is not None:
            self._kinds[part, images, key, backward] += 1
            if recomputed:
                self._kinds[part, images, (*key[:2], False, False), False] += 1

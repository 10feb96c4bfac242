"""Moments of gradient estimates: norm, variance, bias, and their intervals, from running sums and sketches.

With g_i the estimate of minibatch i and r_i the full chain's gradient on it, of N minibatches:

    tr Cov = sum |g_i - mean g|^2 / (N - 1),   |mu|^2 = |mean g|^2 - tr Cov / N,   normalised variance = tr Cov / |mu|^2

Nothing of size N x parameters is kept: bootstrap intervals come from count sketches (Charikar et al. 2002).
"""

import numpy as np
import torch

from ..statistics import bootstrap_mean, normalised_variance

SKETCH = 16384


class Moments:
    """Running sums of paired gradient vectors g (the estimate) and r (the full chain's), N of each.

    Sketches keep dot products up to an error of about |a||b| / sqrt(SKETCH).
    """

    def __init__(self, size: int, device: torch.device | str = "cpu", seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self._bucket = torch.randint(SKETCH, (size,), generator=generator).to(device)
        self._sign = (torch.randint(2, (size,), generator=generator, dtype=torch.int8) * 2 - 1).to(device)
        self.sums = torch.zeros(2, size, dtype=torch.float64, device=device)
        self.dots: list[tuple[float, float, float]] = []  # g.g, r.r, g.r of every minibatch
        self.sketches: list[torch.Tensor] = []  # of g and r, (2, SKETCH)

    def sketch(self, vectors: torch.Tensor) -> torch.Tensor:
        empty = torch.zeros(len(vectors), SKETCH, device=vectors.device)
        return empty.index_add_(1, self._bucket, vectors * self._sign).cpu()

    def add(self, g: torch.Tensor, r: torch.Tensor) -> None:
        pair = torch.stack([g, r])
        self.sums += pair
        self.dots.append((float(g @ g), float(r @ r), float(g @ r)))
        self.sketches.append(self.sketch(pair))

    def state(self) -> dict:
        return {"sums": self.sums, "dots": self.dots, "sketches": self.sketches}

    def load(self, state: dict) -> None:
        self.sums, self.dots, self.sketches = state["sums"], list(state["dots"]), list(state["sketches"])


def numbers(parts: list[Moments]) -> dict[str, float]:
    """Norm, variance and bias over the parameters of all ``parts`` together, with bootstrap intervals over minibatches.

    Where the mean cannot be told from zero (the estimate of its square is not positive) the normalised variance is
    infinite and the norm of the mean NaN. ``full_normalised_variance`` is that of the full chain of the same sampler:
    the same function of the same parameters, on the same minibatches.
    """
    gg, rr, gr = np.array([part.dots for part in parts]).sum(0).T
    count = len(gg)
    products = [(part.sums @ part.sums.T).cpu().numpy() for part in parts]
    sums = np.sum(products, axis=0)
    # Sums over pairs of different minibatches: the square of the sum less the squares.
    mean_g, mean_r, mean_gr = sums[0, 0] - gg.sum(), sums[1, 1] - rr.sum(), sums[0, 1] - gr.sum()
    variance = (gg.sum() - sums[0, 0] / count) / (count - 1)
    square = mean_g / (count * (count - 1))
    stacked = [torch.stack(part.sketches, dim=1) for part in parts]
    ratios = []
    for which, squares in enumerate((gg, rr)):
        gram = sum((s[which] @ s[which].T).double() for s in stacked).numpy()
        np.fill_diagonal(gram, squares)
        ratios.append(normalised_variance(gram))
    ratio, full = ratios
    full_variance, full_square = (rr.sum() - sums[1, 1] / count) / (count - 1), mean_r / (count * (count - 1))
    cosine = np.divide(gr, np.sqrt(gg * rr), out=np.full(count, np.nan), where=gg * rr > 0)
    signal = mean_g > 0 and mean_r > 0
    own = ratio._replace(value=float(variance / square) if square > 0 else float("inf"))
    full = full._replace(value=float(full_variance / full_square) if full_square > 0 else float("inf"))
    return {
        **bootstrap_mean(np.sqrt(gg)).row("norm"),
        "mean_norm": float(np.sqrt(square)) if square > 0 else float("nan"),
        "variance": float(variance),
        **own.row("normalised_variance"),
        **full.row("full_normalised_variance"),
        **bootstrap_mean(cosine).row("cosine"),
        "cosine_of_means": float(mean_gr / np.sqrt(mean_g * mean_r)) if signal else float("nan"),
    }


def split(redrawn: list[tuple[float, float]], total: float) -> dict[str, float]:
    """Shares of the variance: the method's own randomness, the noise, the prompts. They add up to one.

    redrawn: of each minibatch half the squared change of the estimate when the method's randomness is drawn again, and
    when the noise is drawn again too: unbiased estimates of the variance from the first, and from both.
    """
    if not redrawn or not total > 0:
        return dict.fromkeys(("from_method", "from_noise", "from_prompts"), float("nan"))
    own, both = np.mean(redrawn, axis=0)
    return {"from_method": own / total, "from_noise": (both - own) / total, "from_prompts": (total - both) / total}

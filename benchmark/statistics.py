"""Statistics of the benchmark: pure functions on arrays. Axes are named in each docstring.

With five seeds a percentile bootstrap of a single cell covers far less than it says, so a cell's interval is an
analytic one (``crossed_interval``), and the bootstrap is kept for what is pooled over many cells.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
from scipy import stats

CONFIDENCE, RESAMPLES = 0.95, 2000  # of all intervals, and of all bootstraps
ENDS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{format(self.value, spec)} [{format(self.low, spec)}, {format(self.high, spec)}]"

    def row(self, name: str) -> dict[str, float]:
        """As columns of a table: ``name``, ``name_low``, ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def over(self, other: Self) -> Self:
        """Ratio to another, both positive; from the ends of both, so wider than 95%."""
        return Interval(self.value / other.value, self.low / other.high, self.high / other.low)

    def less(self, other: Self) -> Self:
        """Difference to another; from the ends of both, so wider than 95%."""
        return Interval(self.value - other.value, self.low - other.high, self.high - other.low)


class Reached(NamedTuple):
    """Where a curve reached a target.

    cost      at the first point that has it: not more than this
    before    at the point before, where it was not there yet
    censored  it never did: both are the last cost, and the true one is more
    """

    cost: float
    before: float
    censored: bool


class Efficiency(NamedTuple):
    """Compute of another method's whole run over what each run of a method needs to get to where the other ends: to
    reach, and keep to the next evaluation, the mean of the other's last evaluations.

    ratios  (seeds,), by the evaluation that has it: at least this. Of a run that never has it: at most this
    upper   (seeds,), by the evaluation before: at most this; infinite where it is there at the first evaluation
    never   (seeds,), whether it never was
    own     share of its run that each run of the other itself needs to get there; the whole of it where it never does
    gained  whether the target is a gain: the interval of the other's change lies above zero
    """

    ratios: np.ndarray
    upper: np.ndarray
    never: np.ndarray
    own: np.ndarray
    gained: bool

    def mean(self, inverted: bool) -> tuple[float, int]:
        """Geometric mean over seeds, and whether it is a bound: 1 the true one is larger, -1 smaller, 0 it is none."""
        side = int(np.isinf(self.upper).any()) - int(self.never.any())
        value = float(stats.gmean(self.upper if side < 0 else self.ratios))
        return (1 / value, -side) if inverted else (value, side)


def iqm(scores: np.ndarray) -> float:
    """Interquartile mean: the mean of the middle half of all scores (Agarwal et al., NeurIPS 2021)."""
    return float(stats.trim_mean(np.asarray(scores, float), 0.25, axis=None))


def crossed_interval(scores: np.ndarray) -> Interval:
    """Mean of scores (seeds, prompts) for new seeds *and* new prompts, every seed having run on the same prompts.

    Give paired differences of two methods for the interval of their difference. Two-way random effects: with MS_s,
    MS_p, MS_e the mean squares of seeds, prompts and what is left,

        var(mean) = (MS_s + MS_p - MS_e) / (S P),

    and a t quantile at Satterthwaite's degrees of freedom (Searle, Casella, McCulloch: Variance Components, 1992).
    Where prompts and seeds add nothing beyond MS_e the variance is not let fall below MS_e / (S P). Prompts alone, with
    one seed, give the ordinary t interval over prompts: it says nothing about other seeds.
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or scores.size < 2:
        raise ValueError(f"expected scores (seeds, prompts) with at least two values, got shape {scores.shape}")
    seeds, prompts = scores.shape
    mean = scores.mean()
    if 1 in scores.shape:
        half = stats.t.ppf(ENDS[1], scores.size - 1) * scores.std(ddof=1) / np.sqrt(scores.size)
        return Interval(float(mean), float(mean - half), float(mean + half))
    by_seed, by_prompt = scores.mean(1, keepdims=True), scores.mean(0, keepdims=True)
    rest = scores - by_seed - by_prompt + mean
    freedom = np.array([seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)])
    sums = [prompts * np.square(by_seed - mean).sum(), seeds * np.square(by_prompt - mean).sum(), np.square(rest).sum()]
    squares = np.array(sums) / freedom
    total = max(squares[0] + squares[1] - squares[2], squares[2])
    if total <= 0:
        return Interval(float(mean), float(mean), float(mean))
    degrees = max(total**2 / (squares**2 / freedom).sum(), freedom[:2].min())
    half = stats.t.ppf(ENDS[1], degrees) * np.sqrt(total / scores.size)
    return Interval(float(mean), float(mean - half), float(mean + half))


def stratified_bootstrap(tasks: list[np.ndarray], statistic: Callable[[list[np.ndarray]], np.ndarray]) -> Interval:
    """Percentile interval of a statistic pooled over tasks (seeds,); seeds are resampled within each task.

    statistic: of tasks (..., seeds), all resamples at once, gives (...).
    """
    rng = np.random.default_rng(0)
    tasks = [np.asarray(task, float) for task in tasks]
    drawn = [[rng.integers(len(task), size=len(task)) for task in tasks] for _ in range(RESAMPLES)]
    resampled = [task[np.array(indices)] for task, indices in zip(tasks, zip(*drawn, strict=True), strict=True)]
    return percentile_interval(statistic(tasks), statistic(resampled))


def percentile_interval(value: float, drawn: np.ndarray, method: str = "linear") -> Interval:
    """An estimate, with an interval from those of the resamples (R,)."""
    low, high = np.quantile(drawn, ENDS, method=method)
    return Interval(float(value), float(low), float(high))


def resampled_counts(count: int) -> np.ndarray:
    """How often each of N independent values is in each resample, (R, N)."""
    return np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)


def geometric_mean(tasks: list[np.ndarray]) -> Interval:
    """Geometric mean of positive values, all tasks (seeds,) weighing the same, with a stratified bootstrap interval.

    A single value has no interval: its ends are NaN.
    """
    logs = [np.log(np.asarray(task, float)) for task in tasks]
    value, *ends = np.exp(stratified_bootstrap(logs, lambda tasks: np.mean([task.mean(-1) for task in tasks], 0)))
    low, high = ends if sum(map(len, logs)) > 1 else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def bootstrap_mean(values: np.ndarray) -> Interval:
    """Percentile interval of the mean of many independent values (N,); NaNs are left out."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(np.nan, np.nan, np.nan)
    return percentile_interval(values.mean(), resampled_counts(len(values)) @ values / len(values))


def bootstrap_ratio(over: np.ndarray, under: np.ndarray) -> Interval:
    """Percentile interval of mean(over) / mean(under) of many independent pairs (N,)."""
    over, under = np.asarray(over, float), np.asarray(under, float)
    counts = resampled_counts(len(over))
    return percentile_interval(over.mean() / under.mean(), (counts @ over) / (counts @ under))


def normalised_variance(gram: np.ndarray) -> Interval:
    """tr Cov / |mu|^2 of independent vectors, from their dot products (N, N); a percentile interval over the vectors.

    |mu|^2 is the mean over pairs of different vectors, which is unbiased. Where it is not positive, the mean cannot be
    told from zero and the number is infinite.
    """
    gram = np.asarray(gram, float)
    count = len(gram)
    apart = gram - np.diag(np.diag(gram))

    def ratio(weights: np.ndarray) -> np.ndarray:
        pairs = count**2 - np.square(weights).sum(-1)
        square = np.einsum("ri,ij,rj->r", weights, apart, weights, optimize=True) / np.where(pairs > 0, pairs, np.nan)
        variance = weights @ np.diag(gram) / count - square
        return np.where(square > 0, variance / np.where(square > 0, square, 1), np.inf)

    drawn = ratio(resampled_counts(count).astype(float))
    return percentile_interval(ratio(np.ones((1, count)))[0], drawn, "inverted_cdf")


def improvement(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Probability that a run of ours (..., seeds) beats one of theirs (..., seeds); a tie counts half."""
    gap = np.asarray(ours, float)[..., :, None] - np.asarray(theirs, float)[..., None, :]
    return (gap > 0).mean((-2, -1)) + (gap == 0).mean((-2, -1)) / 2


def probability_of_improvement(ours: list[np.ndarray], theirs: list[np.ndarray]) -> Interval:
    """Mean of ``improvement`` over tasks (a list of (seeds,) arrays each), with a stratified bootstrap interval."""
    count = len(ours)

    def mean(tasks: list[np.ndarray]) -> np.ndarray:
        return np.mean([improvement(a, b) for a, b in zip(tasks[:count], tasks[count:], strict=True)], 0)

    return stratified_bootstrap([*ours, *theirs], mean)


def time_to_target(costs: np.ndarray, scores: np.ndarray, target: float) -> Reached:
    """Where a curve (points,) after its start first reaches the target and still has it at the next point.

    The start costs nothing, so it does not count; the last point needs no next one.
    """
    costs, there = np.asarray(costs, float), np.asarray(scores, float) >= target
    kept = np.append(there[:-1] & there[1:], there[-1])[1:]
    if not kept.any():
        return Reached(float(costs[-1]), float(costs[-1]), True)
    first = 1 + int(kept.argmax())
    return Reached(float(costs[first]), float(costs[first - 1]), False)


def frontier(points: np.ndarray) -> np.ndarray:
    """Which points (N, objectives), larger is better, no other point beats in one objective and matches in the rest."""
    points = np.asarray(points, float)
    at_least = (points[None] >= points[:, None]).all(-1)
    better = (points[None] > points[:, None]).any(-1)
    return ~(at_least & better).any(1)

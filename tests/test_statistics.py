import numpy as np
import pytest
from scipy import stats

from benchmark import statistics


def test_iqm_is_the_mean_of_the_middle_half():
    assert statistics.iqm(np.array([[100.0, 1, 2, 3], [4, 5, 6, -100]])) == pytest.approx(np.mean([2, 3, 4, 5]))


def test_crossed_interval_of_seeds_alone_is_the_t_interval_of_their_means():
    """Without an effect of prompts or noise, all prompts of a seed agree."""
    means = np.array([0.1, 0.3, 0.2, 0.6, 0.5])
    found = statistics.crossed_interval(np.repeat(means[:, None], 40, axis=1))
    low, high = stats.t.interval(0.95, 4, means.mean(), stats.sem(means))
    assert found == pytest.approx((means.mean(), low, high))


def test_crossed_interval_of_one_seed_is_the_t_interval_over_prompts():
    scores = np.random.default_rng(0).normal(size=(1, 50))
    low, high = stats.t.interval(0.95, 49, scores.mean(), stats.sem(scores[0]))
    assert statistics.crossed_interval(scores) == pytest.approx((scores.mean(), low, high))


@pytest.mark.parametrize("effects", [(1.0, 1.0), (0.2, 3.0), (0.05, 1.0), (0.0, 0.5), (0.3, 0.0)])
def test_crossed_interval_covers(effects):
    """500 simulated experiments of 5 seeds x 256 prompts; a percentile bootstrap over seeds covers far less."""
    seed_effect, prompt_effect = effects
    rng, covered, naive = np.random.default_rng(1), 0, 0
    for _ in range(500):
        scores = seed_effect * rng.normal(size=(5, 1)) + prompt_effect * rng.normal(size=(1, 256))
        scores = scores + rng.normal(size=(5, 256))
        found = statistics.crossed_interval(scores)
        covered += found.low <= 0 <= found.high
        means = scores.mean(1)
        low, high = np.quantile(means[rng.integers(5, size=(400, 5))].mean(1), [0.025, 0.975])
        naive += low <= 0 <= high
    assert 0.92 <= covered / 500 <= 0.98
    assert naive / 500 < 0.92


@pytest.mark.parametrize("shape", [(5,), (1, 1)])
def test_crossed_interval_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="seeds, prompts"):
        statistics.crossed_interval(np.zeros(shape))


def test_stratified_bootstrap_of_a_mean_agrees_with_its_standard_error():
    rng = np.random.default_rng(0)
    tasks = [rng.normal(loc, 1, size=200) for loc in (0, 5)]
    found = statistics.stratified_bootstrap(tasks, lambda parts: np.mean([p.mean(-1) for p in parts], 0))
    error = np.sqrt(sum(stats.sem(task) ** 2 for task in tasks)) / 2
    assert found.value == pytest.approx(np.mean([t.mean() for t in tasks]))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)  # not the tasks' distance of 5


def test_probability_of_improvement():
    # 1 beats 0; 2 beats 0 and ties with 2; 3 beats both: 4.5 of 6 pairs.
    assert statistics.improvement(np.array([1, 2, 3]), np.array([0, 2])) == pytest.approx(0.75)
    ours, theirs = [np.array([2.0, 3, 4])] * 2, [np.array([0.0, 1, 1.5]), np.array([9.0, 8, 7])]
    found = statistics.probability_of_improvement(ours, theirs)
    assert found == (0.5, 0.5, 0.5)  # always better on one task, always worse on the other


def test_improvement_equals_the_mann_whitney_statistic():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 30), rng.integers(0, 5, 20)
    assert statistics.improvement(a, b) == pytest.approx(stats.mannwhitneyu(a, b).statistic / 600)


@pytest.mark.parametrize(
    ("scores", "reached"),
    [
        ([0, 1, 2, 3], (20, 10, False)), ([0, 2, 0, 2], (30, 20, False)), ([0, 2, 2, 0], (10, 0, False)),
        ([2, 2, 0, 2], (30, 20, False)), ([0, 1, 1, 1], (30, 30, True)),
    ],
)  # fmt: skip
def test_time_to_target_needs_two_evaluations_in_a_row(scores, reached):
    assert statistics.time_to_target([0, 10, 20, 30], scores, 2) == reached


def test_frontier():
    points = [[1, 5], [2, 4], [1, 4], [3, 0], [3, 0], [0, 5]]
    assert statistics.frontier(points).tolist() == [True, True, False, True, True, False]


def test_bootstrap_intervals_of_many_values_cover(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng, covered = np.random.default_rng(2), np.zeros(2)
    for _ in range(300):
        over, under = 2 + rng.normal(size=100), 4 + rng.normal(size=100)
        mean = statistics.bootstrap_mean(over)
        ratio = statistics.bootstrap_ratio(over, under)
        covered += [mean.low <= 2 <= mean.high, ratio.low <= 0.5 <= ratio.high]
    assert (covered / 300 > 0.91).all()
    assert (covered / 300 < 0.98).all()


def test_bootstrap_mean_leaves_nans_out():
    assert statistics.bootstrap_mean([1.0, float("nan"), 3.0]).value == 2
    assert np.isnan(statistics.bootstrap_mean([float("nan")]).value)


def test_normalised_variance_covers(monkeypatch):
    """Vectors with |mu|^2 = 1 and tr Cov = 5."""
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng, covered, values = np.random.default_rng(3), 0, []
    for _ in range(200):
        vectors = np.eye(1, 40) + rng.normal(size=(128, 40)) * (5 / 40) ** 0.5
        found = statistics.normalised_variance(vectors @ vectors.T)
        covered += found.low <= 5 <= found.high
        values.append(found.value)
    assert np.median(values) == pytest.approx(5, rel=0.05)
    assert 0.88 <= covered / 200 <= 0.99

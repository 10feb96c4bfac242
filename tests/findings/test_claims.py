"""Verdicts follow from records by the rules of the file."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.findings.claims import Claim, Rule, judge, markdown, overview, read_claims
from benchmark.records.profile import CellKey, Profile, ProfileError
from benchmark.records.results import Results
from benchmark.statistics import Efficiency, Interval, crossed_interval
from tests.conftest import ROOT
from tests.synthetic import write_cell, write_tree


@pytest.fixture(scope="module")
def profile() -> Profile:
    whole = Profile.read(ROOT / "params.yaml")
    main = whole.groups["main"].model_copy(update={"methods": ["draft_k", "draft", "shortft"], "rewards": ["hps"]})
    groups = {"main": main, "control": whole.groups["control"]}
    return whole.model_copy(update={"groups": groups})


@pytest.fixture(scope="module")
def root(profile, tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("results"), profile)


@pytest.fixture(scope="module")
def results(profile, root) -> Results:
    return Results.read(root, profile, "mini")


@pytest.fixture
def own(profile, root, tmp_path) -> Results:
    """Records to change."""
    return Results.read(Path(shutil.copytree(root, tmp_path / "own")), profile, "mini")


def claim(**rule) -> Claim:
    rule = {"of": ["shortft"], "says": "it", "rewards": ["hps"]} | rule
    return Claim(id="X", text="x", source="paper", rules=[Rule(**rule)])


def test_every_claim_of_the_paper_has_an_entry():
    claims = read_claims(ROOT / "claims.yaml")
    assert [c.id for c in claims] == [*(f"C{i}" for i in range(1, 12)), "Q1", "Q2", "Q3"]
    assert {c.id for c in claims if c.source == "summary"} == {"C2", "C3"}


@pytest.mark.parametrize(
    ("side", "interval", "answer"),
    [
        ("above", (0.6, 0.55, 0.7), "yes"), ("above", (0.6, 0.45, 0.7), "open"), ("above", (0.3, 0.2, 0.5), "no"),
        ("below", (0.3, 0.2, 0.4), "yes"), ("below", (0.3, 0.2, 0.6), "open"), ("below", (0.8, 0.5, 0.9), "no"),
        ("above", (np.nan, np.nan, np.nan), "missing"),
    ],
)  # fmt: skip
def test_an_interval_has_to_exclude_the_threshold(side, interval, answer):
    rule = Rule(measure="gain", of=["a"], says="x", **{side: 0.5})
    assert rule.holds(Interval(*interval)) == answer
    assert rule.holds(None) == "missing"


def test_verdicts_on_invented_records(results):
    # In the invented records ShortFT gains 0.10, draft_k 0.08, draft 0.05.
    stronger = {"measure": "improvement", "over": ["draft_k", "draft"]}
    assert judge(claim(**stronger, above=0.5), results)["verdict"] == "reproduced"
    assert judge(claim(**stronger, below=0.5), results)["verdict"] == "not reproduced"
    weaker = judge(claim(measure="difference", over=["draft_k"], above=0.0), results)
    assert weaker["verdict"] == "reproduced"
    assert weaker["comparisons"][0]["value"] == pytest.approx(0.02, abs=0.01)
    gain = judge(claim(measure="gain", above=0.09), results)["comparisons"][0]
    assert gain["value"] == pytest.approx(results.gains("shortft", "hps").mean(), rel=1e-4)
    assert judge(claim(measure="share_of_gain", above=0.5), results)["verdict"] == "reproduced"
    assert judge(claim(measure="fidelity", over=["naive"], below=1), results)["verdict"] == "reproduced"
    assert judge(claim(measure="fidelity", over=["naive"], below=0.5), results)["verdict"] == "inconclusive"


def test_a_cost_ratio_has_its_interval_from_the_rounds(results):
    cost = results.cost.set_index("method")
    judged = judge(claim(measure="cost_ratio", column="seconds", over=["draft"], above=1), results)["comparisons"][0]
    assert judged["low"] == pytest.approx(cost.seconds_low["shortft"] / cost.seconds_high["draft"], rel=1e-4)
    assert judged["high"] == pytest.approx(cost.seconds_high["shortft"] / cost.seconds_low["draft"], rel=1e-4)


def test_no_verdict_rests_on_part_of_the_seeds(profile, tmp_path):
    cut = Results.read(write_tree(tmp_path, profile, seeds=3), profile, "mini")
    judged = judge(claim(measure="improvement", over=["draft_k"], above=0.5), cut)
    assert judged["verdict"] == "not measured"
    assert judged["comparisons"][0]["so_far"] == "yes"  # shown all the same
    assert "1 not measured in full (so far 1 for)" in "\n".join(overview([judged]))
    assert "lacks 2 of its seeds" in judged["comparisons"][0]["note"]


@pytest.mark.parametrize("measure", ["improvement", "time_to_target"])
def test_what_is_pooled_is_shown_of_the_rewards_that_are_there(results, measure):
    rule = {"measure": measure, "over": ["draft_k"], "above": 0.5}
    whole, part = (judge(claim(**rule, rewards=rewards), results) for rewards in (["hps"], ["hps", "symmetry"]))
    shown = part["comparisons"][0]
    assert part["verdict"] == "not measured"
    assert (shown["holds"], "symmetry" in shown["note"]) == ("missing", True)
    assert shown["value"] == whole["comparisons"][0]["value"]


def test_upper_bounds_prove_nothing_above_a_threshold(own):
    """Four of five runs are eight times as fast, and one never gets there: its ratio is a bound."""
    curves = own.curves
    slow = (curves.variant == "shortft") & (curves.seed == 4)
    curves.loc[(curves.variant == "shortft") & (curves.share > 0), "hps"] = 9.0
    rule = {"measure": "time_to_target", "over": ["draft_k"], "above": 2.1}
    assert judge(claim(**rule), own)["verdict"] == "reproduced"
    curves.loc[slow, "hps"] = 0.0
    judged = judge(claim(**rule), own)
    assert (judged["comparisons"][0]["value"] > 2.1, judged["comparisons"][0]["low"]) == (True, 0)
    assert judged["verdict"] == "inconclusive"


def test_a_ratio_just_short_of_a_threshold_is_no_counter_example(own):
    """Every run is there at the fourth of eight evaluations: somewhere between 2 and 8/3 times as fast."""
    curves = own.curves
    curves.loc[curves.variant == "shortft", "hps"] = np.where(
        curves[curves.variant == "shortft"].share >= 0.5, 9.0, 0.0
    )
    judged = judge(claim(measure="time_to_target", over=["draft_k"], above=2.1), own)
    (row,) = judged["comparisons"]
    assert (row["value"], row["high"]) == (pytest.approx(2, rel=1e-4), pytest.approx(8 / 3, rel=1e-4))
    assert judged["verdict"] == "inconclusive"


def test_a_run_that_diverged_early_is_not_cheap(own):
    curves = own.curves
    ours = curves.variant == "shortft"
    curves.loc[ours, "hps"] = 0.0
    own.curves = curves[~ours | (curves.share <= 1 / 8)]
    found = own.efficiency("shortft", "draft_k", "hps")
    assert (found.never.all(), found.ratios.max()) == (True, pytest.approx(1))
    assert judge(claim(measure="time_to_target", over=["draft_k"], above=2.1), own)["verdict"] == "not reproduced"


def test_bounds_of_means():
    def of(ratios, upper, never):
        return Efficiency(np.array(ratios), np.array(upper), np.array(never), np.ones(2), True).mean(inverted=False)

    assert of([1.0, 4.0], [1.5, 6.0], [False, False]) == (pytest.approx(2), 0)
    assert of([1.0, 4.0], [1.0, 9.0], [True, False]) == (pytest.approx(3), -1)  # at most: by the evaluation before
    assert of([8.0, 2.0], [np.inf, 3.0], [False, False]) == (pytest.approx(4), 1)
    assert of([8.0, 1.0], [np.inf, 1.0], [False, True])[1] == 0  # unknown on both sides


@pytest.mark.parametrize(("shift", "value_sign", "low_sign"), [(0.0, 1, 1), (-0.3, -1, -1)])
def test_a_share_of_a_gain_has_the_ends_of_both(own, shift, value_sign, low_sign):
    for folder in own.of("shortft", "hps").folder:
        scores = pd.read_csv(Path(folder) / "scores.csv")
        scores.loc[(scores.split == "test") & (scores.when == "after"), "hps"] += shift
        scores.to_csv(Path(folder) / "scores.csv", index=False)
    here, there = (crossed_interval(own.gains("shortft", "hps", split=split)) for split in ("test", "train"))
    (row,) = judge(claim(measure="share_of_gain", split="test", above=0.5), own)["comparisons"]
    ends = [x / y for x in here[1:] for y in there[1:]]
    assert (np.sign(row["value"]), np.sign(row["low"])) == (value_sign, low_sign)
    assert (row["low"], row["high"]) == (pytest.approx(min(ends), rel=1e-4), pytest.approx(max(ends), rel=1e-4))
    assert row["holds"] == ("yes" if shift == 0 else "no")


def test_a_target_that_is_no_gain_is_said(own):
    for folder in own.of("draft_k", "hps").folder:
        scores = pd.read_csv(Path(folder) / "scores.csv")
        after = scores.when == "after"
        scores.loc[after, "hps"] = scores.loc[~after, "hps"].to_numpy() - 0.01
        scores.to_csv(Path(folder) / "scores.csv", index=False)
    assert not own.efficiency("shortft", "draft_k", "hps").gained
    judged = judge(claim(measure="time_to_target", over=["draft_k"], above=2.1), own)
    assert "no clear gain" in judged["comparisons"][0]["note"]


def test_a_question_is_answered(results):
    question = claim(measure="gain", above=0.0).model_copy(update={"source": "question"})
    assert judge(question, results)["verdict"] == "yes"


def test_efficiency_is_the_ratio_of_computes(own):
    # ShortFT's invented curve rises as 1 - (1 - share)^2 and reaches draft_k's end between two evaluations.
    curves = own.curves
    target = curves[(curves.variant == "draft_k") & (curves.share == 1)].hps.mean()
    ours = curves[(curves.variant == "shortft") & (curves.seed == 0)].sort_values("share")
    reached = ours[ours.hps >= target].share.min()
    found = own.efficiency("shortft", "draft_k", "hps")
    assert found.ratios[0] == pytest.approx(1 / reached)
    assert found.upper[0] == pytest.approx(1 / (reached - 1 / 8))
    assert (found.never.any(), found.gained) == (False, True)
    back = own.efficiency("draft_k", "shortft", "hps")
    assert back.never.any()
    assert back.ratios[back.never] == pytest.approx(1)
    themselves = own.efficiency("draft_k", "draft_k", "hps")
    assert found.own == pytest.approx(1 / themselves.ratios)


def test_nothing_is_measured_without_records(profile, tmp_path):
    write_cell(tmp_path, CellKey("mini", "shortft", "hps", 0, ""), profile)
    empty = Results.read(tmp_path, profile, "mini")
    for each in read_claims(ROOT / "claims.yaml"):
        assert judge(each, empty)["verdict"] == "not measured"


def test_the_text_says_it_all(results):
    verdicts = [judge(each, results) for each in read_claims(ROOT / "claims.yaml")]
    text = markdown(verdicts, "suite mini")
    assert all(f"## {v['id']}." in text for v in verdicts)
    assert "shortft over draft_k" in text


def test_a_bad_file_of_claims_is_one_line(tmp_path):
    path = tmp_path / "claims.yaml"
    for content, words in (
        ("claims: 3", "no claims"),
        ("- a", "no claims"),
        ("claims: [{id: C1, text: x, source: paper, rules: [{measure: luck, of: [a], says: x, above: 1}]}]", "luck"),
        ("claims: [{id: C1, text: x, source: paper, rules: [{measure: gain, of: [a], says: x}]}]", "above"),
    ):
        path.write_text(content)
        with pytest.raises(ProfileError, match=words) as error:
            read_claims(path)
        assert "\n" not in str(error.value)


def test_gradient_ratios_are_bounded_by_both_intervals(results):
    rule = {"measure": "gradient_ratio", "column": "norm", "over": ["draft"]}
    rows = judge(claim(**rule, above=1), results)["comparisons"]
    table = results.gradients
    table = table[(table.reference_step == 20) & (table.progress == 0) & (table.slot.astype(str) == "all")]
    ours, theirs = (table[table.method == name].iloc[0] for name in ("shortft", "draft"))
    assert len(rows) == 2
    assert rows[0]["value"] == pytest.approx(ours.norm / theirs.norm, rel=1e-4)
    assert rows[0]["low"] == pytest.approx(ours.norm_low / theirs.norm_high, rel=1e-4)

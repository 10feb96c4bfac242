"""Figures are made from what they show."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Arc
from PIL import Image
from typer.testing import CliRunner

from benchmark.about import about
from benchmark.records import read_json, write_json
from benchmark.records.profile import Profile
from benchmark.records.results import Results
from paper_figures import FIGURES, chain_length, chains, curves, find, forest, frontier, samples, style, time_to_target
from paper_figures import reward_against_compute as against_compute
from paper_figures import reward_against_seconds as against_seconds
from paper_figures.__main__ import main
from tests import synthetic

SMOKE = Path("profiles/smoke.yaml")
OF_RUNS = [name for name in FIGURES if name != "chains"]  # which is of the methods, and the same for every suite


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = synthetic.write_tree(tmp_path_factory.mktemp("whole"), Profile.read(SMOKE))
    write_json(root / "mini/about.json", about(Profile.read(SMOKE), "mini"))
    return root


@pytest.fixture
def tree(whole, tmp_path):
    """A copy to take things away from."""
    return Path(shutil.copytree(whole, tmp_path / "tree"))


def read(root, suite="mini"):
    return Results.read(root, Profile.read(SMOKE), suite)


def run(*arguments):
    return CliRunner().invoke(main, ["--params", str(SMOKE), *map(str, arguments)])


def lines(figure, gid):
    return [line for axes in figure.axes for line in axes.lines if line.get_gid() == gid]


def scale(path, column, factor):
    """Stretch a curve around its start."""
    table = pd.read_csv(path)
    table[column] = table[column].iloc[0] + factor * (table[column] - table[column].iloc[0])
    table.to_csv(path, index=False)


def test_a_chain_is_drawn_hop_by_hop(whole):
    results = read(whole)
    plans = results.about["plans"]
    assert {"draft", "draft_k", "refl", "shortft 1", "shortft 4"} <= set(plans)
    assert "ddpo" not in plans  # a policy gradient has no differentiable chain
    for name, jumps in (("shortft 1", 3), ("shortft 2", 2), ("shortft 3", 1), ("shortft 4", 0), ("draft", 0)):
        results.about["plans"] = {name: plans[name]}
        arcs = [p for p in chains.figure(results).axes[0].patches if isinstance(p, Arc)]
        assert len(arcs) == len(plans[name])
        orange = [arc for arc in arcs if arc.get_edgecolor()[0] > 0.8 and arc.get_edgecolor()[2] < 0.1]
        assert len(orange) == jumps


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_whole_tree_gives_every_figure_and_names_its_suite(whole, name):
    figure = find(name).figure(read(whole))
    assert "embedded suite mini, not Stable Diffusion" in figure.get_suptitle()


def test_every_method_has_a_figure_for_its_page(whole):
    results = read(whole)
    drawn = find("methods").figures(results)
    assert list(drawn) == results.profile.methods()
    for method, figure in drawn.items():
        panels = figure.axes[-len(results.rewards()) :]
        assert [axes.get_title() for axes in panels] == results.rewards(), method
        own = [[line for line in axes.lines if line.get_color() == style.of(method).colour] for axes in panels]
        assert [len(lines) for lines in own] == [int(len(results.curve(method, r)) > 0) for r in results.rewards()]
    assert find("methods").figures(dataclasses.replace(results, curves=results.curves[:0])) == {}


@pytest.mark.parametrize("name", FIGURES)
def test_without_records_there_is_no_figure(tmp_path, name):
    assert find(name).figure(read(tmp_path)) is None
    assert find(name).NEEDS


GONE = {"gradients": "gradient_variance chain_length", "fidelity": "shortcut_fidelity shortcut_pictures"}
GONE |= {"placement": "acting", "cost.json": "", "about.json": "chains"}
GONE |= {"hps/shortft": "time_to_target", "hps": "time_to_target samples"}


@pytest.mark.parametrize(("gone", "missing"), GONE.items())
def test_what_is_missing_leaves_out_what_needs_it(tree, gone, missing):
    path = read(tree).file(gone)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    results = read(tree)
    assert {name for name in FIGURES if find(name).figure(results) is None} == set(missing.split())


def test_where_a_lora_acts_is_written_out(whole):
    texts = [text.get_text() for text in find("acting").figure(read(whole)).axes[0].texts]
    assert texts == ["+0.100", "+0.040", "+0.080", "+0.010"] * len(Profile.read(SMOKE).methods())


def test_a_line_is_the_mean_of_the_curves(tree):
    results = read(tree)
    (line,) = (li for li in against_compute.figure(results).axes[0].lines if li.get_label() == "shortft")
    tables = [pd.read_csv(tree / f"mini/hps/shortft/seed-{seed}/curve.csv") for seed in (0, 1)]
    np.testing.assert_allclose(line.get_ydata(), np.mean([table.hps for table in tables], axis=0))
    np.testing.assert_allclose(line.get_xdata(), tables[0].operations / 1e12)
    band = curves.band(results.curve("shortft", "hps"), "hps").iloc[-1]
    values = [table.hps.iloc[-1] for table in tables]
    half = 12.7062 * np.std(values, ddof=1) / np.sqrt(2)  # t quantile at one degree of freedom
    np.testing.assert_allclose([band.low, band.high], np.mean(values) + np.array([-half, half]), rtol=1e-5)


def test_a_mean_is_of_the_same_seeds_at_every_point(tree):
    path = tree / "mini/hps/shortft/seed-0/curve.csv"
    pd.read_csv(path).drop(index=[2, 3]).to_csv(path, index=False)
    assert len(curves.band(read(tree).curve("shortft", "hps"), "hps")) == 7


def test_only_plain_methods_have_curves(whole):
    assert {line.get_label() for line in against_compute.figure(read(whole)).axes[0].lines} == {"draft_k", "shortft"}


def test_seconds_are_those_measured_alone_where_they_are(tree):
    cost = read_json(tree / "mini/cost.json")
    cost["methods"]["shortft"] |= {"seconds": 3.0, "operations": 5e10}
    del cost["methods"]["draft_k"]
    write_json(tree / "mini/cost.json", cost)
    figure = against_seconds.figure(read(tree))
    ends = {line.get_label(): line.get_xdata()[-1] for line in figure.axes[0].lines}
    assert ends == {"shortft": pytest.approx(200 * 3.0), "draft_k": pytest.approx(100)}  # 200 steps of 5e10; its own
    (legend,) = [*(axes.get_legend() for axes in figure.axes if axes.get_legend()), *figure.legends]
    assert [text.get_text() for text in legend.get_texts()] == ["draft_k *", "shortft"]
    assert "no cost benchmark" in legend.get_title().get_text()


def test_a_seed_that_never_got_there_or_at_once_is_drawn_as_a_bound(tree):
    scale(tree / "mini/hps/shortft/seed-1/curve.csv", "hps", 0.1)
    figure = time_to_target.figure(read(tree))

    def drawn(gid, marker):
        return [line for line in lines(figure, gid) if line.get_marker() == marker and len(line.get_xdata())]

    (never,), (there,), (mean,) = (drawn(gid, "o") for gid in ("bound", "reached", "mean"))  # ShortFT's runs
    assert never.get_markerfacecolor() == mean.get_markerfacecolor() == "white" != there.get_markerfacecolor()
    assert never.get_xdata() == pytest.approx([1])  # the budgets are the same: at most as cheap
    assert there.get_xdata()[0] > 1
    before = 1 / (1 / there.get_xdata()[0] - 1 / 8)  # the ratio by the evaluation before: at most
    assert mean.get_xdata() == pytest.approx([np.sqrt(before)])
    (others,), (mean,) = drawn("reached", "s"), drawn("mean", "s")  # the other's, which all get to ShortFT's end
    assert len(others.get_xdata()) == 2
    assert max(others.get_xdata()) <= 1
    assert mean.get_markerfacecolor() == others.get_markerfacecolor() != "white"
    for seed in (0, 1):
        scale(tree / f"mini/hps/shortft/seed-{seed}/curve.csv", "hps", 0.01)
    figure = time_to_target.figure(read(tree))
    (others,) = drawn("bound", "s")  # at once: at most an eighth of the compute
    assert others.get_xdata() == pytest.approx([1 / 8, 1 / 8])


def test_where_the_other_ends_at_no_gain_is_no_target(tree):
    for seed in (0, 1):
        path = tree / f"mini/hps/draft_k/seed-{seed}/scores.csv"
        scores = pd.read_csv(path)
        scores.loc[scores.when == "after", "hps"] -= 0.2
        scores.to_csv(path, index=False)
        summary = path.with_name("summary.json")
        record = read_json(summary)
        write_json(summary, record | {"reward_after": record["reward_after"] - 0.2})
    figure = time_to_target.figure(read(tree))
    assert "no clear gain" in [text.get_text() for text in figure.axes[0].texts]
    assert {line.get_marker() for line in lines(figure, "mean")} == {"s"}


def test_a_forest_says_what_is_missing_and_how_many_seeds_there_are(tree):
    shutil.rmtree(tree / "mini/hps/draft_k/seed-0")
    shutil.rmtree(tree / "mini/hps/shortft-one-lora")
    results = read(tree)
    hps, symmetry = forest.figure(results).axes[:2]
    said = {round(text.xy[1]): text.get_text() for text in hps.texts if text.get_text() != "seeds"}
    rows = results.variants()
    assert said[rows.index("draft_k")] == "1/2"
    assert said[rows.index("shortft")] == "2"
    assert said[rows.index("shortft-one-lora")] == "not measured"
    assert "\N{EN DASH}" in {text.get_text() for text in symmetry.texts}
    (mean,) = (line for line in hps.lines if line.get_gid() == "shortft")
    assert mean.get_xdata() == pytest.approx([results.gains("shortft", "hps").mean()])


def test_a_frontier_joins_the_means_that_no_other_beats(whole):
    results = read(whole)
    oracle = frontier.figure(results).axes[0]
    table = frontier.points(results, "hps")
    means = table[["oracle", "gain"]].to_numpy()
    best = [m for m in means if not any((n >= m).all() and (n > m).any() for n in means)]
    (line,) = (line for line in oracle.lines if line.get_gid() == "frontier")
    np.testing.assert_allclose(np.array(line.get_data()).T, sorted(map(tuple, best)))


def test_samples_are_the_base_once_and_every_variant(tree):
    for folder, tone in (("draft_k", 60), ("shortft", 200), ("draft_k-trailing", 120)):
        picture = np.full((64, 256, 3), 20, np.uint8)
        picture[32:] = tone
        Image.fromarray(picture).save(tree / f"mini/hps/{folder}/seed-0/samples.jpg", quality=95)
    config = read_json(path := tree / "mini/hps/draft_k-trailing/seed-0/run.json")
    assert config["config"]["settings"]["spacing"] == "trailing", path
    figure = samples.figure(read(tree))
    names = [axes.texts[0].get_text().split("\n")[0] for axes in figure.axes]
    tones = {name: axes.images[0].get_array().mean() for name, axes in zip(names, figure.axes, strict=True)}
    assert names.count("base model") == 1
    assert names[-3:] == ["base model, trailing", "draft_k-trailing", "on symmetry:"]
    assert [tones[n] for n in ("base model", "draft_k", "shortft")] == pytest.approx([20, 60, 200], abs=2)
    said = [text.get_text() for text in figure.axes[0].texts]
    scores = pd.read_csv(tree / "mini/hps/shortft/seed-0/scores.csv")
    oracle = scores[(scores.split == "test") & (scores.when == "before")].oracle.iloc[0]
    assert said[1] == f"{oracle:.2g}"
    assert said[-8:-6] == ["test prompt 0", "test prompt 1"]


def test_chain_lengths():
    names = {"draft_k": 1, "draft_k k=20": 20, "draft": 50, "draft_lv": None, "draft_k k=2 spacing=trailing": None}
    assert {name: chain_length.chain_length(name) for name in names} == names


def test_an_infinite_variance_does_not_reach_the_axis(tree):
    table = pd.read_csv(path := tree / "mini/gradients/hps.csv")
    table.loc[table.method == "draft_k", ["normalised_variance", "normalised_variance_high"]] = np.inf
    table.to_csv(path, index=False)
    figure = find("gradient_variance").figure(read(tree))
    figure.draw_without_rendering()
    assert np.isfinite(figure.axes[0].get_xlim()).all()
    step = table.reference_step.min()
    (cosine,) = lines(figure, f"draft_k {step}")  # its variance is an arrow instead of a point
    assert cosine.axes is figure.axes[1]


def test_every_variant_of_the_profiles_has_a_style_of_its_own():
    profile = Profile.read(Path("params.yaml"))
    names = list(dict.fromkeys(key.variant for key in profile.cells()))
    assert set(names) <= set(style.STYLES)
    assert len({style.of(name) for name in names}) == len(names)
    grey = {(s.marker, s.filled, s.line) for s in map(style.of, names)}  # apart without colour too
    assert len(grey) == len(names)
    assert style.of("draft_k-new").colour == style.of("draft_k").colour
    assert style.of("new") == style.of("new")


def test_written_twice_is_byte_identical(whole, tmp_path):
    only = [part for name in FIGURES for part in ("--only", name)]
    for folder in ("a", "b"):
        result = run("--results", whole, "--out", tmp_path / folder, *only)
        assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg"))
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
        assert (tmp_path / "a" / name).stat().st_size < 1e6


def test_what_is_left_out_is_named_and_its_old_files_go(tree, tmp_path):
    arguments = ("--results", tree, "--out", tmp_path, "--only", "chain_length")
    assert "written" in run(*arguments).output
    shutil.rmtree(tree / "mini/gradients")
    result = run(*arguments)
    assert result.exit_code == 0
    assert "left out  chain_length: needs the gradient probe's table" in result.output
    assert not list(tmp_path.glob("chain_length.*"))


WRONG = {"--results nowhere": "no folder nowhere", "--only pie": "unknown figure 'pie'"}
WRONG |= {"--params nowhere.yaml": "nowhere.yaml", "--suite sd9": "unknown suite 'sd9'"}
WRONG |= {"--out pyproject.toml": "cannot make the folder pyproject.toml"}


@pytest.mark.parametrize(("arguments", "words"), WRONG.items())
def test_bad_input_is_one_line(whole, arguments, words):
    result = run("--results", whole, "--only", "chain_length", *arguments.split())
    assert result.exit_code == 2
    assert words in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_figures_of_records_need_no_torch():
    modules = ", ".join(f"paper_figures.{name}" for name in (*FIGURES, "__main__"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"

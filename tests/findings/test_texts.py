"""Texts filled from records: numbers, pages, and that our findings stand under our verdicts alone."""

import json
import re
from pathlib import Path

import pytest

from benchmark import docs, tables
from benchmark.errors import InputError
from benchmark.findings import texts
from benchmark.findings.tables import open_results
from benchmark.findings.texts import Numbers, environment, located
from benchmark.statistics import Interval, crossed_interval
from tests.conftest import ROOT, call, refused

SMOKE = ROOT / "profiles/smoke.yaml"


@pytest.fixture
def invented(root):
    return open_results(SMOKE, root)[0]


def render(numbers: Numbers, folder: Path, text: str) -> str:
    (folder / "t.md").write_text(text)
    with located(folder):
        return environment(numbers, folder).get_template("t.md").render()


# -- numbers


def test_numbers_are_those_of_the_records(invented):
    ask, runs = Numbers(invented), invented.of("shortft", "hps")
    assert ask.gain("shortft", "hps") == crossed_interval(invented.gains("shortft", "hps"))
    assert ask.gain("shortft", "hps", "oracle") == ask.number("ranking", "oracle", variant="shortft", reward="hps")
    assert ask.gain("shortft", "hps", split="train") != ask.gain("shortft", "hps")
    assert ask.gap("draft_k", "shortft", "hps") == crossed_interval(invented.paired("draft_k", "shortft", "hps"))
    assert ask.base("hps") == runs.reward_before.mean()
    assert ask.base("hps", "pickscore") == runs["heldout.pickscore.before"].mean()
    assert ask.final("shortft", "hps", "oracle") == runs.oracle_after.mean()
    assert ask.run("shortft", "hps", 0).items() >= {"steps": 200, "settings.learning_rate": 1e-3}.items()
    assert ask.mean("curves", "share", variant="shortft", reward="hps") == pytest.approx(0.5)
    assert ask.mean("log", "step", variant="shortft", progress=(0, 0.5)) == pytest.approx(50.5)
    assert ask.gradient("draft", "norm", 20) == Interval(*invented.gradients[["norm", "norm_low", "norm_high"]].iloc[2])
    assert ask.jump("241->1") == (0.5, 0.45, 0.55)
    assert ask.image("coarse", "hps").value == -0.01
    assert ask.placement("shortft", "50", "hps").value == 0.01
    assert ask.cost("shortft", "few_step_seconds") == 100
    assert ask.cost("draft_k", "seconds").low == pytest.approx(ask.cost("draft_k", "seconds").value - 0.05)
    assert (ask.count(reward="hps"), ask.cells(reward="hps"), ask.count(), ask.cells()) == (7, 7, 9, 9)
    assert [row["variant"] for row in ask.rows("acting", variant=["draft_k", "shortft"], steps="50")] == [
        *(v for v in invented.profile.methods() if v in ("draft_k", "shortft"))
    ]


def test_what_is_not_there_is_an_error(invented):
    ask = Numbers(invented)
    for wrong in (
        lambda: ask.gain("shortfd", "hps"),
        lambda: ask.gap("shortft", "ddpo", "symmetry", "no score"),
        lambda: ask.run("shortft", "hps", 99),
        lambda: ask.number("ranking", "gain", reward="hps"),  # several rows
        lambda: ask.number("ranking", "gained", variant="shortft", reward="hps"),
        lambda: ask.mean("curves", "hps", variant="nobody"),
        lambda: ask.rows("rankings"),
        lambda: ask.rows("ranking", method="shortft"),
        lambda: ask.block("rankings"),
        lambda: ask.verdict("C99"),
    ):
        with pytest.raises(InputError) as error:
            wrong()
        assert "\n" not in str(error.value)


def test_filters(invented, tmp_path):
    lines = {
        "{{ gap | interval }} {{ gap | ends(2) }} {{ gap | signed(1) }}": "-0.123 [-0.200, +0.050] [-0.20, +0.05] -0.1",
        "{{ 0.12345 | plain }} {{ 0.958 | percent }} {{ 8132.8 | thousands }}": "0.123 96% 8,133",
        "{{ 3 | word }} {{ 2.91 | word }} {{ 13 | word }} {{ 4.0 }} {{ 7 }}": "three three 13 4 7",
        '{{ [0.02, 0.025, gap] | extent }} {{ [0.02, 0.0204] | extent(2, "") }}': "-0.123 to +0.025 0.02",
        "{{ ratio(6, 2) }} {{ ratio(gap, gap).value }}": "3 1",
    }
    numbers = Numbers(invented)
    numbers.gap = Interval(-0.123, -0.2, 0.05)
    assert {line: render(numbers, tmp_path, line) for line in lines} == lines


@pytest.mark.parametrize(
    ("line", "words"),
    [("{{ gains('a') }}", "'gains' is undefined"), ("{{ gain('nobody', 'hps') }}", "no runs of nobody"),
     ("{{ 0.5 }}", "needs a filter"), ("{{ gain('shortft', 'hps') }}", "needs a filter"), ("{{ 1 +", "unexpected"),
     ("{{ gain() }}", "missing 2 required")],
)  # fmt: skip
def test_a_bad_template_is_one_line_with_its_place(invented, tmp_path, line, words):
    with pytest.raises(InputError, match=words) as error:
        render(Numbers(invented), tmp_path, f"first line\n{line}\n")
    assert str(error.value).startswith(f"{tmp_path / 't.md'}, line 2: ")
    assert "\n" not in str(error.value)


# -- pages


def test_pages_are_made_of_templates(root, tmp_path):
    templates = tmp_path / "docs/_templates"
    (templates / "methods").mkdir(parents=True)
    (templates / "claims").mkdir()
    (templates / "README.md").write_text('{{ block("state") }}\n\n{{ block("results") }}\n\n{{ block("verdicts") }}\n')
    (templates / "results.md").write_text('{{ block("choice") }}\n')
    (templates / "methods/a.md").write_text('{{ gain("shortft", "hps") | signed }}\n')
    (templates / "claims/C1.md").write_text("no page\n")
    line = (docs.main, "--params", SMOKE, "--results", root, "--templates", templates)
    pages = [tmp_path / "README.md", tmp_path / "docs/results.md", tmp_path / "docs/methods/a.md"]

    foreign = call(*line)
    assert (foreign.exit_code, "other records" in foreign.output) == (0, True)
    assert call(*line, "--check").exit_code == 1
    assert not any(page.exists() for page in pages)

    assert call(*line, "--written-about").exit_code == 0
    assert sorted(tmp_path.rglob("*.md")) == sorted([*pages, *templates.rglob("*.md")])
    text = pages[0].read_text()
    assert text.startswith("<!-- Made from docs/_templates/README.md by ")
    assert "9 of 9 cells of the standard matrix are there: `hps` 7 of 7, `symmetry` 2 of 2." in text
    assert "| method | run, s | few-step model, s | peak MB | hps, gain | oracle | symmetry, gain | oracle |" in text
    assert len(re.findall(r"^\| [CQ]\d+ \|", text, re.MULTILINE)) == 14
    assert "| reward | seeds | largest gain |" in pages[1].read_text()
    assert re.search(r"^\+0\.\d{3}$", pages[2].read_text(), re.MULTILINE)

    first = {page: page.read_bytes() for page in pages}
    assert (call(*line, "--check").exit_code, call(*line).output) == (0, "")
    pages[1].write_text("by hand")
    stale = call(*line, "--check")
    assert (stale.exit_code, pages[1].read_text()) == (1, "by hand")
    assert "results.md: not current" in stale.output.replace("\n", "")
    assert call(*line).exit_code == 0
    assert {page: page.read_bytes() for page in pages} == first

    (templates / "results.md").write_text("{{ nothing }}")
    assert refused(call(*line), "results.md, line 1: 'nothing' is undefined")


def test_pages_without_any_run(invented):
    nothing = Numbers(type(invented).read(Path("/nowhere"), invented.profile, "mini"))
    assert nothing.block("state").startswith("0 of 9 cells")
    assert "not measured" in nothing.block("choice")
    assert nothing.block("results").startswith("| method |")


# -- the texts of verdicts


@pytest.fixture(scope="module")
def shipped():
    return open_results(ROOT / "params.yaml", ROOT / "results")[0]


def test_this_repositorys_verdicts_have_their_texts(shipped):
    for recorded in json.loads((ROOT / "results/claims.json").read_text()):
        about = texts.about(recorded["id"], shipped)
        assert recorded["caveat"] == about["caveat"]
        assert recorded["explanation"] in ("", about["explanation"])


def test_this_repositorys_pages_are_current():
    """Where it fails: python -m benchmark.docs"""
    result = call(docs.main, "--check")
    assert result.exit_code == 0, result.output


def test_no_measured_number_is_typed():
    """Versions and bars are no measurements: Stable Diffusion 1.5, a ratio of 1.05."""
    for path in [*texts.TEMPLATES.glob("claims/*"), texts.TEMPLATES / "results.md"]:
        if path.suffix != ".json":
            text = re.sub(r"\{[{%#].*?[}%#]\}", "", path.read_text(), flags=re.DOTALL)
            assert set(re.findall(r"\d+\.\d+", text)) <= {"1.5", "1.05"}, path


def test_other_records_get_none_of_our_findings(root):
    assert call(tables.main, "--params", SMOKE, "--results", root).exit_code == 0
    verdicts = json.loads((root / "claims.json").read_text())
    assert len(verdicts) == 14
    assert not any(v["caveat"] or v["explanation"] for v in verdicts)


def test_texts_stand_under_the_verdicts_that_they_are_about(shipped, tmp_path):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims/C1.md").write_text("{% block caveat %}one\n\n two{% endblock %}")
    (tmp_path / texts.WRITTEN_ABOUT).write_text(json.dumps({"mini": texts.digest(shipped)}))
    assert texts.about("C1", shipped, tmp_path) == {"caveat": "one two\n", "explanation": ""}
    assert texts.about("C2", shipped, tmp_path) == {"caveat": "", "explanation": ""}
    (tmp_path / "claims/C1.md").write_text('{% block caveat %}{{ cost("nobody", "seconds") }}{% endblock %}')
    assert texts.about("C1", shipped, tmp_path)["caveat"] == ""  # not measured
    (tmp_path / "claims/C1.md").write_text("{% block caveat %}{{ costs }}{% endblock %}")
    with pytest.raises(InputError, match=r"C1\.md, line 1: 'costs' is undefined"):
        texts.about("C1", shipped, tmp_path)
    (tmp_path / "claims/C1.md").write_text("{% block caveat %}one{% endblock %}")
    score = shipped.runs.reward_after[0]
    shipped.runs.loc[0, "reward_after"] = score + 1e-9
    assert texts.about("C1", shipped, tmp_path)["caveat"] == ""
    shipped.runs.loc[0, "reward_after"] = score

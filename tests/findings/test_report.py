"""The report says what the records say, links to what is there, and works in a browser."""

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmark.about import about
from benchmark.findings import tables
from benchmark.findings.report.page import code, join, ranges, scale
from benchmark.records import write_json
from benchmark.records.profile import Profile
from benchmark.report import main
from tests.synthetic import write_tree

SMOKE = Path("profiles/smoke.yaml")
HOSTILE = "<script>document.body.dataset.hacked = 1</script>"
BROKEN = "mini/hps/draft_k/seed-1"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A tree with a broken run, one without its picture, a hostile prompt and folder, and tables and a figure."""
    root = write_tree(tmp_path_factory.mktemp("report") / "results", Profile.read(SMOKE))
    write_json(root / "mini/about.json", about(Profile.read(SMOKE), "mini"))
    (root / BROKEN / "summary.json").unlink()
    (root / "mini/hps/shortft-one-lora/seed-0/samples.jpg").unlink()
    other = root / f"mini/{HOSTILE.replace('/', '')}"
    other.mkdir()
    (other / "run.json").write_text("{}")
    for path in root.rglob("scores.csv"):
        scores = pd.read_csv(path)
        scores.prompt = scores.prompt.replace("test prompt 1", HOSTILE)
        scores.to_csv(path, index=False)
    for part in tables.open_results(SMOKE, root):
        tables.write(tables.build(part), root / "tables" / part.suite)
    (root / "figures").mkdir()
    (root / "figures/chains.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (root / "figures/some_plot.png").write_bytes(b"\x89PNG")
    return root


def make(root: Path, *arguments: str):
    given = f"--params {SMOKE} --results {root} --figures {root / 'figures'} --out {root / 'report.html'}"
    return CliRunner().invoke(main, [*given.split(), *arguments])


@pytest.fixture(scope="module")
def page(root) -> str:
    result = make(root)
    assert result.exit_code == 0, result.output
    return (root / "report.html").read_text(encoding="utf-8")


def test_it_opens_with_the_verdicts_and_what_they_are_of(page):
    text = unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)))
    assert "Figures of the embedded suite, mini, are never Stable Diffusion" in text
    assert "8 of 9 runs of the matrix are there, at 4step each" in text
    assert re.search(r'id="mini-C5".*?badge good">reproduced', page, re.DOTALL)
    assert re.search(r'id="mini-C11".*?badge none">not measured', page, re.DOTALL)
    assert page.index('id="mini-C1"') < page.index('id="mini-table1"')
    assert re.search(r'aria-label="0.5, from 0.45 to 0.55;\s+threshold 1"', page)


def test_links_lead_to_what_is_there(page, root):
    links = [unquote(unescape(link)) for link in re.findall(r'<a href="([^"]+)"', page)]
    files = [link for link in links if not link.startswith(("#", "https://arxiv.org/"))]
    assert {"mini/hps/shortft/seed-0/", "mini/hps/shortft/seed-1/", "tables/mini/table1.csv"} <= set(files)
    assert [link for link in files if not (root / link).exists()] == []
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert anchors <= set(re.findall(r' id="([^"]+)"', page))


def test_nothing_is_loaded_from_elsewhere(page):
    assert re.findall(r'https?://[^"\s<]+', re.sub(r'<a href="[^"]*"', "", page)) == []
    assert set(re.findall(r'(?:src|<link[^>]*href)="(\w+:)', page)) == {"data:"}
    assert "default-src 'none'" in page


def test_figures_are_titled_by_their_modules(page):
    title = "The chain of every method, drawn from its plan: which hops, which model, where the gradient flows"
    assert title in page
    assert 'alt="some plot"' in page
    assert "data:image/svg+xml;base64," in page


def test_words_say_what_rows_and_rewards_are(page):
    assert "<dt>shortft</dt><dd>back-propagate the reward through a chain that a frozen few-step model shortens" in page
    assert "<dt>shortft-one-lora</dt><dd><code>shortft</code> with <code>timestep_aware = false</code>" in page
    assert "<dt>hps</dt><dd>Human Preference Score" in page
    assert "<dt>symmetry</dt><dd>Left-right symmetry" in page


def test_a_control_is_described_by_its_own_class():
    titles = about(Profile.read(Path("params.yaml")), "mini")["methods"]
    assert titles["benchmark.controls:ShortFTEverywhere"]["title"].startswith("ShortFT whose LoRAs act at every step")


def test_what_is_not_there_is_named(page, root):
    assert f"{root / BROKEN}</a>: summary.json is missing" in page
    assert re.search(r'<th scope="row">draft_k</th><td>1</td>', page)
    result = make(root, "--figures", str(root / "nowhere"), "--out", str(root / "bare.html"))
    assert result.exit_code == 0
    assert "There is no folder of figures (<code>nowhere</code>)" in (root / "bare.html").read_text()


def test_text_of_records_is_never_markup(page):
    assert HOSTILE not in page
    assert "<script>document" not in page
    assert "&lt;script&gt;document" in page  # the folder
    assert r"\u003cscript\u003edocument" in page  # the prompt


def test_backticks_are_code():
    assert code("a `b` and ``<c>``") == "a <code>b</code> and <code>&lt;c&gt;</code>"


def test_the_same_records_give_the_same_bytes(page, root):
    assert make(root, "--out", str(root / "again.html")).exit_code == 0
    assert (root / "again.html").read_text(encoding="utf-8") == page


def test_wrong_input_is_one_line_and_status_2(root, tmp_path):
    for option, value in {"results": tmp_path, "claims": "nowhere.yaml", "params": "nowhere.yaml", "out": root}.items():
        result = make(root, f"--{option}", str(value))
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


def test_it_needs_no_torch():
    code = "import sys, benchmark.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_seeds_are_named_compactly():
    assert [ranges(seeds) for seeds in ([], [3], [0, 1, 2, 4])] == ["", "3", "0-2, 4"]


def test_comparisons_share_a_scale():
    missing = {"value": None, "low": None, "high": None, "threshold": 4}
    place, logarithmic = scale([{"value": 1, "low": 0, "high": 2, "threshold": 4}, missing])
    assert not logarithmic
    assert (place(0), place(2), place(4), place(None)) == (10, 100, 190, None)
    place, logarithmic = scale([{"value": 1, "low": 1, "high": 1, "threshold": 100}])
    assert logarithmic
    assert place(10) == 100


def test_another_sampler_stands_beside_its_own_base_image(root, tmp_path):
    chains, seen = [], root / "mini/hps/shortft/seed-0"
    scores = pd.read_csv(seen / "scores.csv")
    scores.assign(hps=scores.hps - 0.05).to_csv(tmp_path / "scores.csv", index=False)
    for variant, folder in (("a", seen), ("b", seen), ("c", tmp_path)):
        join(chains, variant, "hps", folder)
    assert [[run["variant"] for run in chain["runs"]] for chain in chains] == [["a", "b"], ["c"]]


PROBE = """
<script>
const seen = { errors: [] };
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("load", () => {
  const table = document.querySelector("#mini-table1 table"), head = table.tHead.rows[0].cells[1];
  const methods = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join();
  const order = [methods()];
  for (let i = 0; i < 3; i++) {
    head.querySelector("button").click();
    order.push(head.getAttribute("aria-sort"), methods());
  }
  const images = document.querySelector("#images"), [reward, seed] = images.querySelectorAll("select");
  const look = () => ({
    status: images.querySelector("[role=status]").textContent,
    prompts: [...images.querySelectorAll(".prompt > h3")].map((h) => h.textContent),
    names: [...images.querySelector(".prompt").querySelectorAll(".name")].map((n) => n.textContent),
    last: [...images.querySelectorAll(".prompt")].pop().querySelector(".tuned .picture").style.backgroundPosition,
    empty: images.querySelectorAll(".picture.empty").length,
  });
  const choose = (select, value) => { select.value = value; select.dispatchEvent(new Event("change")); };
  const looks = [look()];
  choose(seed, "1");
  looks.push(look());
  choose(seed, "0");
  choose(reward, "symmetry");
  looks.push(look());
  const wide = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.seen = JSON.stringify({ ...seen, order, looks, wide });
});
</script>
"""


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium to open the report")
    return found


def test_it_works_in_a_browser(page, root, chromium, tmp_path):
    (tmp_path / "page.html").write_text(page.replace("<head>", "<head>" + PROBE, 1), encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --enable-logging=stderr --dump-dom"
    window = [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--window-size=1280,900"]
    opened = [chromium, *options.split(), *window, (tmp_path / "page.html").as_uri()]
    result = subprocess.run(opened, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
    seen = json.loads(unescape(re.search(r'data-seen="([^"]*)"', result.stdout)[1]))
    assert "data-hacked" not in result.stdout
    assert seen["errors"] == []
    assert seen["wide"] <= 0

    first, *clicks = seen["order"]
    assert first == "base model,draft_k,shortft"
    assert clicks == ["ascending", first, "descending", "shortft,draft_k,base model", None, first]

    start, other, symmetry = seen["looks"]
    assert len(start["prompts"]) == 8
    assert start["prompts"][1] == HOSTILE
    assert start["status"] == "hps, seed 0: 5 tuned models."
    assert start["names"][0] == "base model"
    assert start["last"] == "100% 100%"
    assert start["empty"] == 8  # the run without its picture
    assert other["status"] == "hps, seed 1: 1 tuned models. Not measured: draft_k."
    assert symmetry["names"] == ["base model", "shortft", "shortft-one-lora"]

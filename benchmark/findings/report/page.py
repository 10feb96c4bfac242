"""The report's page from records: everything that the template shows, as plain values in a fixed order. No torch."""

import base64
import inspect
import itertools
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from paper_figures import FIGURES, find

from ...records import SAMPLES, read_json
from ...records.results import Results
from ..claims import Claim, count, judge
from ..tables import Table, build

HERE = Path(__file__).parent
BLOCKS = {"trim_blocks": True, "lstrip_blocks": True}  # template lines that are tags alone leave no line
BAR = 200  # width of an interval's drawing


def page(loaded: list[Results], claims: list[Claim], figures: Path, out: Path) -> str:
    """The whole page, for a file at ``out``: links are relative to its folder."""
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, **BLOCKS)
    environment.filters["code"] = code
    environment.filters["link"] = lambda path: quote(Path(os.path.relpath(path, out.parent)).as_posix())
    suites = [suite(results, claims) for results in loaded]
    template = environment.get_template("page.html")
    return template.render(suites=suites, figures=figures_in(figures), folder=figures.name)


def code(text: str) -> Markup:
    """Text whose `backticks`, single or double, become code."""
    parts = enumerate(text.replace("``", "`").split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in parts)


def data_uri(path: Path, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def suite(results: Results, claims: list[Claim]) -> dict:
    """One suite's part of every section."""
    verdicts = [verdict(judge(claim, results)) for claim in claims]
    choice, *others = (table(made, results) for made in build(results))
    done = len(results.runs)
    size = {"budget": results.profile.budget, "done": done, "total": done + len(results.missing)}
    axes = {"rewards": results.rewards(), "seeds": sorted({key.seed for key in results.profile.cells()})}
    left_out = {"problems": results.problems.sort_values("folder").to_dict("records")}
    found = {"verdicts": verdicts, "tally": tally(verdicts), "choice": choice, "tables": others}
    parts = {part.__name__: part(results) for part in (words, pictures, missing, environments)}
    return {"name": results.suite} | size | axes | left_out | found | parts


# -- verdicts

TONES = {"reproduced": "good", "yes": "good", "not reproduced": "bad", "no": "bad"}
TONES |= {"inconclusive": "open", "not measured": "none", "open": "open", "missing": "none"}


def verdict(judged: dict) -> dict:
    """A verdict with its comparisons grouped by rule, each with its interval's drawing."""
    groups = []
    keys = ("says", "direction", "threshold")
    for key, rows in itertools.groupby(judged["comparisons"], key=lambda row: tuple(row[k] for k in keys)):
        rows = list(rows)
        place, logarithmic = scale(rows)
        for row in rows:
            row |= {"tone": TONES[row["holds"]]} | {f"x_{k}": place(row[k]) for k in ("value", "low", "high")}
        groups.append(dict(zip(keys, key, strict=True)) | {"rows": rows, "x": place(key[2]), "log": logarithmic})
    held = count(judged["comparisons"])
    so_far = held.partition("(")[2].rstrip(")")
    return judged | {"tone": TONES[judged["verdict"]], "groups": groups, "count": held, "so_far": so_far}


def scale(rows: list[dict]) -> tuple[Callable[[float | None], float | None], bool]:
    """Where a number lies on the drawings of a rule, which share one scale; and whether that is logarithmic."""
    ends = [row[k] for row in rows for k in ("value", "low", "high", "threshold") if row[k] is not None]
    logarithmic = min(ends) > 0 and max(ends) > 20 * min(ends)
    change = math.log if logarithmic else float
    first, last = change(min(ends)), change(max(ends))
    span = (last - first) or 1.0

    def place(x: float | None) -> float | None:
        return None if x is None else round(BAR * (0.05 + 0.9 * (change(x) - first) / span), 1)

    return place, logarithmic


def tally(verdicts: list[dict]) -> list[tuple[str, str, int]]:
    """Verdict, tone and how many claims or questions have it."""
    counts = Counter(v["verdict"] for v in verdicts)
    return [(word, tone, counts[word]) for word, tone in TONES.items() if counts[word]]


def words(results: Results) -> list[tuple[str, str]]:
    """Every row and reward of the tables with what it is, as far as the records say."""
    methods, rewards = (results.about.get(part, {}) for part in ("methods", "rewards"))
    rows = []
    for variant in results.variants():
        options = dict(results.profile.variants.get(variant, {}))
        method = options.pop("method", variant)
        given = ", ".join(f"`{name} = {json.dumps(value)}`" for name, value in options.items())
        rows.append((variant, f"`{method}` with {given}" if given else methods.get(method, {}).get("title", "")))
    return [*rows, *((reward, rewards.get(reward, "")) for reward in results.rewards())]


# -- tables


def table(made: Table, results: Results) -> dict:
    """A table's cells, each split into its number and what stands behind it, with its runs."""
    rows = []
    for i, row in enumerate(made.shown.itertuples(index=False, name=None)):
        cells = []
        for column, text in zip(made.shown.columns, map(str, row), strict=True):
            number, rest = re.fullmatch(r"(.*?)((?: [(\[].*)?)", text).groups()
            runs = [Path(folder) for folder in made.runs.get((i, column), [])]
            cells.append({"text": number, "rest": rest.strip(), "runs": runs})
        rows.append(cells)
    csv = results.root / "tables" / results.suite / f"{made.name}.csv"
    return {"made": made, "columns": list(made.shown.columns), "rows": rows, "csv": csv if csv.is_file() else None}


# -- figures


def figures_in(folder: Path) -> list[dict] | None:
    """Every SVG below the folder, and every PNG without one beside it, in the order of ``FIGURES``; None without it."""
    if not folder.is_dir():
        return None
    found = {path.with_suffix(""): path for ending in ("png", "svg") for path in folder.glob(f"*.{ending}")}
    order = sorted(found, key=lambda stem: (FIGURES.index(stem.name) if stem.name in FIGURES else len(FIGURES), stem))
    return [figure(found[stem], str(stem.relative_to(folder))) for stem in order]


def figure(path: Path, name: str) -> dict:
    """A figure; its title and how to read it are the docstring of its module."""
    text = inspect.getdoc(find(path.stem)) if path.stem in FIGURES else ""
    title, _, rest = text.partition("\n")
    title = title.rstrip(".") or path.stem.replace("_", " ")
    reading = [" ".join(part.split()) for part in rest.split("\n\n") if part.strip()]
    uri = data_uri(path, "svg+xml" if path.suffix == ".svg" else "png")
    return {"name": name, "title": title, "reading": reading, "uri": uri}


# -- pictures


def pictures(results: Results) -> dict[str, dict[int, dict]]:
    """By reward and seed: runs in chains (that begin at the same base images), and variants without a run."""
    found = {}
    for reward in results.rewards():
        expected = {variant: results.expected(variant, reward) for variant in results.variants()}
        found[reward] = {}
        for seed in sorted({seed for seeds in expected.values() for seed in seeds}):
            chains, absent = [], []
            for variant in (v for v, seeds in expected.items() if seed in seeds):
                runs = results.of(variant, reward)
                if len(runs) and seed in set(runs.seed):
                    join(chains, variant, reward, Path(runs.folder[runs.seed == seed].iloc[0]))
                else:
                    absent.append(variant)
            for chain in chains:
                chain["scores"] = [f"{x:.3f}" for x in chain["scores"]]
            found[reward][seed] = {"chains": chains, "absent": absent}
    return found


def join(chains: list[dict], variant: str, reward: str, folder: Path) -> None:
    """Put a run into the chain it belongs to. Samplers of other spacing, or another model, begin at other images."""
    scores = pd.read_csv(folder / "scores.csv")
    scores = scores[scores.split == "test"]
    before, after = (scores[scores.when == when].head(SAMPLES).reset_index(drop=True) for when in ("before", "after"))
    prompts = before.prompt.astype(str).tolist()
    sheet = folder / "samples.jpg"  # base above, tuned below: the page cuts it
    shown = [f"{x:.3f} ({x - old:+.3f})" for x, old in zip(after[reward], before[reward], strict=True)]
    run = {"variant": variant, "sheet": data_uri(sheet, "jpeg") if sheet.is_file() else None, "scores": shown}
    for chain in chains:
        if chain["prompts"] == prompts and np.allclose(chain["scores"], before[reward], rtol=1e-3, atol=1e-3):
            chain["runs"].append(run)
            return
    chains.append({"prompts": prompts, "scores": before[reward].to_numpy(), "runs": [run]})


# -- what is not there, and where it was measured


def missing(results: Results) -> list[dict]:
    """Variants with the seeds that they lack, reward by reward; cells that the profile does not have are empty."""
    lacking = defaultdict(list)
    for key in sorted(results.missing, key=lambda key: key.seed):
        lacking[key.variant, key.reward].append(key.seed)
    rows = {v: [ranges(lacking[v, r]) for r in results.rewards()] for v in results.variants()}
    return [{"variant": variant, "seeds": seeds} for variant, seeds in rows.items() if any(seeds)]


def ranges(seeds: list[int]) -> str:
    """0, 1, 2, 4 as 0-2, 4."""
    runs = [[seed for _, seed in run] for _, run in itertools.groupby(enumerate(seeds), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def environments(results: Results) -> list[dict]:
    """Devices and versions of the good runs, the most frequent first, with how many runs and which commits."""
    groups = defaultdict(list)
    for folder in results.runs.folder:
        found = read_json(Path(folder) / "environment.json") or {"device": "no environment.json"}
        versions = found["versions"] if isinstance(found.get("versions"), dict) else {}
        key = {name: found.get(name, "") for name in ("device", "threads", "python")} | {"versions": versions}
        groups[json.dumps(key, sort_keys=True)].append(str(found.get("commit") or "")[:7])
    order = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [json.loads(key) | {"runs": len(made), "commits": sorted({*made} - {""})} for key, made in order]

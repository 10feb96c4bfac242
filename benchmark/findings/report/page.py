"""The report's page from records: everything that the template shows, as plain values in a fixed order. No torch."""

from __future__ import annotations

import ast
import base64
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from paper_figures import FIGURES

from ..claims import Claim, count, judge
from ...records import SAMPLES, read_json
from ...records.results import Results
from ..tables import Table, build

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = ROOT / "paper_figures"
BAR = 200  # width of an interval's drawing


def page(loaded: list[Results], claims: list[Claim], figures: Path, out: Path) -> str:
    """The whole page, for a file at ``out``: links are relative to its folder."""

    def link(path: str | Path) -> str:
        return quote(Path(os.path.relpath(path, out.parent)).as_posix())

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["code"] = code
    return environment.get_template("page.html").render(
        suites=[suite(results, claims, link) for results in loaded], figures=figures_in(figures), folder=figures.name
    )


def code(text: str) -> Markup:
    """Text whose `backticks`, single or double, become code."""
    parts = enumerate(text.replace("``", "`").split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in parts)


def data_uri(path: Path, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def suite(results: Results, claims: list[Claim], link: Callable) -> dict:
    """One suite's part of every section."""
    verdicts = [verdict(judge(claim, results)) for claim in claims]
    done = len(results.runs)
    choice, *others = (table(made, results, link) for made in build(results))
    return {
        "name": results.suite, "budget": results.profile.budget, "done": done, "total": done + len(results.missing),
        "verdicts": verdicts, "tally": tally(verdicts), "choice": choice, "tables": others,
        "words": words(results), "rewards": results.rewards(),
        "seeds": sorted({k.seed for k in results.profile.cells()}),
        "pictures": {reward: pictures(results, reward) for reward in results.rewards()},
        "problems": [{"folder": row.folder, "href": link(row.folder), "problem": row.problem}
                     for row in results.problems.sort_values("folder").itertuples()],
        "missing": missing(results), "environments": environments(results),
    }  # fmt: skip


# -- verdicts

TONES = {"reproduced": "good", "yes": "good", "not reproduced": "bad", "no": "bad", "inconclusive": "open",
         "not measured": "none", "open": "open", "missing": "none"}  # fmt: skip


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


# -- words: read from the sources, which to import would need torch


def words(results: Results) -> list[tuple[str, str]]:
    """Every row and reward of the tables with what it is, as far as this repository's sources say."""
    rows = []
    for variant in results.variants():
        given = dict(results.profile.variants.get(variant, {}))
        method = given.pop("method", variant)
        text = f"`{method}` with " + ", ".join(f"`{k} = {json.dumps(v)}`" for k, v in given.items()) if given else ""
        rows.append((variant, text or first_line(docstring(ROOT / f"methods/{method}.py")).partition(": ")[2]))
    suite = constants(ROOT / f"benchmark/suites/{results.suite}/suite.py")
    pixels = {name.lower(): first_line(text) for name, text in docstrings(ROOT / "benchmark/rewards/pixels.py").items()}
    meanings = pixels | suite.get("learned_rewards", {}) | suite.get("combinations", {})
    return [*rows, *((reward, meanings.get(reward, "")) for reward in results.rewards())]


def first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(".")


def parsed(module: Path) -> ast.Module:
    """A module's source; nothing where there is none that can be read."""
    try:
        return ast.parse(module.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return ast.Module([], [])


def docstring(module: Path) -> str:
    return ast.get_docstring(parsed(module)) or ""


def docstrings(module: Path) -> dict[str, str]:
    """Of a module's classes."""
    return {part.name: ast.get_docstring(part) or "" for part in parsed(module).body if isinstance(part, ast.ClassDef)}


def constants(module: Path) -> dict:
    """The literal tables in the classes of a module, by name."""
    parts = [part for cls in parsed(module).body if isinstance(cls, ast.ClassDef) for part in cls.body]
    return {part.targets[0].id: ast.literal_eval(part.value) for part in parts
            if isinstance(part, ast.Assign) and isinstance(part.value, ast.Dict)}  # fmt: skip


# -- tables


def table(made: Table, results: Results, link: Callable) -> dict:
    """A table's cells, each split into its number and what stands behind it, with links to its runs."""
    rows = []
    for i, row in enumerate(made.shown.itertuples(index=False, name=None)):
        cells = []
        for column, text in zip(made.shown.columns, map(str, row), strict=True):
            number, rest = re.fullmatch(r"(.*?)((?: [(\[].*)?)", text).groups()
            runs = [(Path(folder).name, link(folder)) for folder in made.runs.get((i, column), [])]
            cells.append({"text": number, "rest": rest.strip(), "runs": runs})
        rows.append(cells)
    csv = results.root / "tables" / results.suite / f"{made.name}.csv"
    return {"name": made.name, "title": made.title, "note": made.note, "columns": list(made.shown.columns),
            "rows": rows, "published": made.published, "csv": link(csv) if csv.is_file() else None}  # fmt: skip


# -- figures


def figures_in(folder: Path) -> list[dict] | None:
    """Every SVG below the folder, and every PNG that has none beside it, and the methods' chains; None without it.

    In the order of ``paper_figures.FIGURES``, others after them.
    """
    if not folder.is_dir():
        return None
    found = {path.with_suffix(""): path for ending in ("png", "svg") for path in folder.rglob(f"*.{ending}")}
    order = sorted(found, key=lambda stem: (FIGURES.index(stem.name) if stem.name in FIGURES else len(FIGURES), stem))
    drawn = [figure(found[stem], str(stem.relative_to(folder))) for stem in order]
    chains = MODULES / "chains.svg"  # drawn from the code, not from records
    return drawn + [figure(chains, "chains")] * (chains.is_file() and "chains" not in {path.stem for path in order})


def figure(path: Path, name: str) -> dict:
    """A figure; its title and how to read it are the docstring of its module, which is read and not imported."""
    title, _, rest = docstring(MODULES / f"{path.stem}.py").partition("\n")
    parts = [part.strip("\n") for part in rest.split("\n\n") if part.strip()]
    reading = [" ".join(part.split()) for part in parts if not part.startswith(" ")]  # indented: commands
    return {"name": name, "title": title.rstrip(".") or path.stem.replace("_", " "), "reading": reading,
            "uri": data_uri(path, "svg+xml" if path.suffix == ".svg" else "png")}  # fmt: skip


# -- pictures


def pictures(results: Results, reward: str) -> dict[int, dict]:
    """By seed: runs in chains (those that begin at the same images of the base model), and variants without a run."""
    found = {}
    for seed in sorted({seed for variant in results.variants() for seed in results.expected(variant, reward)}):
        chains, absent = [], []
        for variant in (v for v in results.variants() if seed in results.expected(v, reward)):
            runs = results.of(variant, reward)
            folders = list(runs.folder[runs.seed == seed]) if len(runs) else []
            if folders:
                join(chains, variant, reward, Path(folders[0]))
            else:
                absent.append(variant)
        for chain in chains:
            chain["scores"] = [f"{x:.3f}" for x in chain["scores"]]
        found[seed] = {"chains": chains, "absent": absent}
    return found


def join(chains: list[dict], variant: str, reward: str, folder: Path) -> None:
    """Put a run into the chain it belongs to. Samplers of other spacing, or another model, begin at other images."""
    scores = pd.read_csv(folder / "scores.csv")
    before, after = (scores[(scores.split == "test") & (scores.when == when)].head(SAMPLES).reset_index(drop=True)
                     for when in ("before", "after"))  # fmt: skip
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
    lacking = {(v, r): sorted(k.seed for k in results.missing if (k.variant, k.reward) == (v, r))
               for v in results.variants() for r in results.rewards()}  # fmt: skip
    return [{"variant": v, "seeds": [ranges(lacking[v, r]) for r in results.rewards()]}
            for v in results.variants() if any(lacking[v, r] for r in results.rewards())]  # fmt: skip


def ranges(seeds: list[int]) -> str:
    """0, 1, 2, 4 as 0-2, 4."""
    runs = [[seed for _, seed in run] for _, run in itertools.groupby(enumerate(seeds), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def environments(results: Results) -> list[dict]:
    """Devices and versions of the good runs, the most frequent first, with how many runs and which commits."""
    groups: dict[str, list[str]] = {}
    for folder in results.runs.folder:
        found = read_json(Path(folder) / "environment.json")
        key = {"device": "no environment.json"}
        if found is not None:
            versions = found["versions"] if isinstance(found.get("versions"), dict) else {}
            key = {name: found.get(name, "") for name in ("device", "threads", "python")} | {"versions": versions}
        commit = str((found or {}).get("commit") or "")[:7]
        groups.setdefault(json.dumps(key, sort_keys=True), []).append(commit)
    return [{"threads": "", "python": "", "versions": {}} | json.loads(key)
            | {"runs": len(commits), "commits": sorted({c for c in commits if c})}
            for key, commits in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))]  # fmt: skip

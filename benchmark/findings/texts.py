"""Texts filled from records: no number of README, docs or verdicts is typed by hand. No torch.

A template is a Jinja2 file below ``docs/_templates`` (undefined names are errors). ``python -m benchmark.docs`` renders

    docs/_templates/README.md          -> README.md
    docs/_templates/X.md               -> docs/X.md
    docs/_templates/methods/Y.md       -> docs/methods/Y.md
    docs/_templates/claims/C1.md       no page: its blocks ``caveat`` and ``explanation`` are the texts of a verdict

Text like this:

    ShortFT gains {{ gain("shortft", "hps") | signed }} of hps, in {{ run("shortft", "hps", 0).steps }} steps.
    {{ block("ranking") }}

**Tables, whole.** ``block(name)`` is a Markdown table: any table of ``results/tables`` by its name (``choice``,
``ranking``, ``table1`` to ``table3``, ``controls``, ``spacing``, ``side_effects``, ``time_to_target``, ``equal_gain``,
``cost``, ``gpu``, ``gradients``, ``acting``, ``rates``, ``settled``), and ``verdicts`` (claims with their verdicts),
``results`` (cost, gain and oracle of every method) and ``state`` (a sentence: how much of the matrix is there).

**Numbers of a table.** Rows are chosen by the columns of the table's CSV: a value, a list (any of them), or a tuple
(from, to), where ``to`` is left out. Where a column has ``_low`` and ``_high`` beside it, the number is an ``Interval``
(``.value .low .high``).

    number("ranking", "gain", variant="shortft", reward="hps")           of the only such row, else an error
    mean("curves", "oracle", variant="draft", reward="hps", share=0.5)   the mean over all such rows
    rows("acting", variant=["draft", "draft_k"], steps="37-49")          all such rows, for a loop: {{ row.gain }}

Tables of records, beside those above: ``runs`` (one row per run: steps, seconds, reward_before, ``settings.rank``...),
``curves`` (one per evaluation along a run), ``log`` (one per step of a run; its column ``reward`` is named ``scored``),
``jumps-SPACING`` and ``images-SPACING`` (fidelity of the few-step model).

**Short for them.** ``reward`` is the trained reward, ``column`` another score (``oracle``, ``diversity``, ...).

    gain(variant, reward, column=reward, split="test")   change by tuning, an Interval; split: combinations, train
    gap(of, over, reward, column=reward)                 gain of one less that of another, paired, an Interval
    base(reward, column=reward, variant=None)            mean score before tuning (of the variant's sampler)
    final(variant, reward, column=reward)                mean score after tuning
    run(variant, reward, seed)                           one run's row of ``runs``
    gradient(method, column, step, stage=0, slot="all")  norm, normalised_variance, cosine, batches, ...
    jump(stretch, column="ratio", spacing="leading")     error of the few-step model's jump over that of a naive one
    image(chain, reward, column="change", spacing="leading")    reward of its images, less that of the full chain's
    placement(variant, steps, reward, column="gain")     gain with the LoRA on at these steps alone
    cost(method, column), gpu(method, batch, column)     seconds, peak_mb, step_mb, run_seconds, operations, ...
    settled(reward, share, column="gained")              how much of all gains is there by then; tau: rank correlation
    time_to_target(method, question, reward)             ratio of computes, a bound rounded to its safe side; question:
                                                         forth (ShortFT to where it ends) or back (the reverse)
    equal_gain(variant, reward, column="oracle")         at ShortFT's gain, less ShortFT's, an Interval (share: none)
    verdict(id)                                          its verdict, text, comparisons; ``held`` of ``all`` hold
    count(**columns), cells(**columns)                   runs that are there; cells that the profile has
    ratio(x, y)                                          of numbers or Intervals; its ends from the ends of both
    profile, suite                                       profile.budget, profile.tuning.rates, ...; the suite's name

**Filters.** The argument is the digits after the point. Of an Interval they show the value, ``interval`` and ``ends``
its ends too. A number that is not whole has to have a filter.

    signed(3)  +0.077        interval(3)  +0.077 [+0.068, +0.086]        thousands   8,133
    plain(3)   0.077         ends(3)      [+0.068, +0.086]               percent(0)  96%
    word       three (zero to twelve, then digits)        extent(3)      +0.020 to +0.025, of a list

The texts are about certain records, whose digest ``docs/_templates/claims/written_about.json`` keeps. Where the records
are others, verdicts stand without texts, and pages are left alone. ``python -m benchmark.docs --written-about`` says
that the texts have been read again and are true of the records of today.
"""

import contextlib
import functools
import hashlib
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from jinja2.debug import rewrite_traceback_stack

from ..errors import InputError, unknown
from ..records import read_json
from ..records.reader import read_csv
from ..records.results import Results
from ..statistics import Interval, crossed_interval
from .tables import NAMES, table
from .tables.curves import safe
from .tables.matrix import cell_row, seeds_of
from .tables.table import NOT_MEASURED, marked, piped

TEMPLATES = Path(__file__).parents[2] / "docs/_templates"
WRITTEN_ABOUT = "claims/written_about.json"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


class NotMeasured(InputError):
    """The records do not have what a text asks for."""


class Numbers:
    """What a template can ask of the records of a suite: everything public.

    verdicts  what ``claims.judge`` gives, for ``verdict``
    blocks    lines of further blocks, by their names
    """

    def __init__(self, results: Results, verdicts: Iterable[dict] = (), blocks: dict[str, list[str]] | None = None):
        self._results, self._blocks = results, blocks or {}
        self._verdicts = {v["id"]: v for v in verdicts}
        self.profile, self.suite, self.ratio = results.profile, results.suite, ratio

    # -- tables

    def block(self, name: str) -> str:
        made = {"results": summary, "state": progress}
        if name not in (known := [*NAMES, *made, *self._blocks]):
            raise unknown("block", name, known)
        if name in self._blocks:
            return "\n".join(self._blocks[name])
        return "\n".join(made[name](self._results) if name in made else table(self._results, name).lines())

    def rows(self, table: str, **where) -> list[dict]:
        return [with_intervals(row) for row in self._chosen(table, where).to_dict("records")]

    def number(self, table: str, column: str, **where) -> float | str | Interval:
        row = self._row(table, where)
        if column not in row:
            raise unknown(f"column of {table}", column, row)
        return row[column]

    def mean(self, table: str, column: str, **where) -> float:
        found = self._chosen(table, where)
        if found.empty:
            raise NotMeasured(f"no row of {table} has {where}")
        return float(found[column].mean())

    def count(self, **where) -> int:
        return len(self._chosen("runs", where))

    def cells(self, **where) -> int:
        return len(self._chosen("cells", where))

    def _row(self, table: str, where: dict) -> dict:
        found = self.rows(table, **where)
        if len(found) != 1:
            raise NotMeasured(f"{len(found)} rows of {table} have {where}; one is expected")
        return found[0]

    def _chosen(self, name: str, where: dict) -> pd.DataFrame:
        """Rows of a table's numbers, or of a table of records."""
        results, (kind, _, spacing) = self._results, name.partition("-")
        if name == "log":
            runs = {column: x for column, x in where.items() if column in ("variant", "reward", "seed")}
            frame = training_log(chosen(results.runs, runs))
        elif name in ("runs", "curves", "cells"):
            frame = pd.DataFrame(getattr(results, name))
        elif kind in ("jumps", "images"):
            frame = getattr(results, kind)(spacing)
        elif name in NAMES:
            frame = table(results, name).frame
        else:
            raise unknown("table", name, [*NAMES, "runs", "curves", "log", "cells", "jumps-leading", "images-leading"])
        return pd.DataFrame() if frame is None else chosen(frame, where)

    # -- the matrix

    def gain(self, variant: str, reward: str, column: str | None = None, split: str = "test") -> Interval:
        return self._interval(self._results.gains(variant, reward, column, split), f"{variant} on {reward}")

    def gap(self, of: str, over: str, reward: str, column: str | None = None) -> Interval:
        return self._interval(self._results.paired(of, over, reward, column), f"{of} and {over} on {reward}")

    def _interval(self, scores: np.ndarray | None, of: str) -> Interval:
        if scores is None:
            raise NotMeasured(f"there are no runs of {of} with this score")
        return crossed_interval(scores)

    def base(self, reward: str, column: str | None = None, variant: str | None = None) -> float:
        return self._score(variant or self.profile.methods()[0], reward, column, "before")

    def final(self, variant: str, reward: str, column: str | None = None) -> float:
        return self._score(variant, reward, column, "after")

    def _score(self, variant: str, reward: str, column: str | None, when: str) -> float:
        known = {None: f"reward_{when}", reward: f"reward_{when}"} | {x: f"{x}_{when}" for x in ("oracle", "diversity")}
        return self.mean("runs", known.get(column, f"heldout.{column}.{when}"), variant=variant, reward=reward)

    def run(self, variant: str, reward: str, seed: int) -> dict:
        return self._row("runs", {"variant": variant, "reward": reward, "seed": seed})

    def settled(self, reward: str, share: float, column: str = "gained") -> float:
        return self.number("settled", column, reward=reward, share=share)

    def time_to_target(self, method: str, question: str, reward: str) -> float:
        row = self._row("time_to_target", {"method": method, "question": question, "reward": reward})
        return safe(row["ratio"], {"below": 1, "above": -1}.get(row["bound"], 0))

    def equal_gain(self, variant: str, reward: str, column: str = "oracle") -> Interval | float:
        return self.number("equal_gain", column, variant=variant, reward=reward)

    def verdict(self, name: str) -> dict:
        if name not in self._verdicts:
            raise unknown("claim", name, self._verdicts)
        held = [row["holds"] == "yes" for row in self._verdicts[name]["comparisons"]]
        return self._verdicts[name] | {"held": sum(held), "all": len(held)}

    # -- the probes

    def gradient(self, method: str, column: str, step: int, stage: float = 0, slot: str | int = "all"):
        return self.number("gradients", column, method=method, reference_step=step, progress=stage, slot=str(slot))

    def jump(self, stretch: str, column: str = "ratio", spacing: str = "leading"):
        return self.number(f"jumps-{spacing}", column, stretch=stretch)

    def image(self, chain: str, reward: str, column: str = "change", spacing: str = "leading"):
        return self.number(f"images-{spacing}", column, chain=chain, reward=reward)

    def placement(self, variant: str, steps: str, reward: str, column: str = "gain"):
        return self.number("acting", column, variant=variant, steps=steps, reward=reward)

    def cost(self, method: str, column: str):
        return self.number("cost", column, method=method)

    def gpu(self, method: str, batch: int, column: str):
        return self.number("gpu", column, variant=method, batch=batch)


def chosen(frame: pd.DataFrame, where: dict) -> pd.DataFrame:
    """Rows with certain values in some columns: one, one of a list, or one between the ends of a tuple."""
    for column, wanted in where.items() if len(frame) else ():
        if column not in frame:
            raise unknown("column", column, frame.columns)
        if isinstance(wanted, tuple):
            frame = frame[frame[column].between(*wanted, inclusive="left")]
        else:
            frame = frame[frame[column].isin(wanted if isinstance(wanted, list) else [wanted])]
    return frame


def training_log(runs: pd.DataFrame) -> pd.DataFrame:
    """What runs logged, a row for each step; ``scored``: the mean reward of the step's images."""
    parts = []
    for run in runs.itertuples():
        log = read_csv(Path(run.folder) / "log.csv", ["reward"]).rename(columns={"reward": "scored"})
        parts.append(log.assign(variant=run.variant, reward=run.reward, seed=run.seed))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def progress(results: Results) -> list[str]:
    """How much of the matrix is there, in a sentence."""
    here, cells = list(results.runs.get("reward", [])), [key.reward for key in results.cells]
    parts = ", ".join(f"`{reward}` {here.count(reward)} of {cells.count(reward)}" for reward in results.rewards())
    return [f"{len(here)} of {len(cells)} cells of the standard matrix are there: {parts}."]


def summary(results: Results) -> list[str]:
    """Cost, gain and oracle of every method, the largest gain of the first reward first, in a few columns."""
    methods = results.profile.methods()
    found = {(m, r): cell_row(results, m, r) for m in methods for r in results.rewards()}
    rewards = [r for r in results.rewards() if any(found[m, r] for m in methods)]
    costs = {row["method"]: row for row in table(results, "cost").frame.to_dict("records")}

    def gain(method: str) -> float:
        row = found[method, rewards[0]] if rewards else None
        return row["gain"].value if row else -np.inf

    def line(method: str) -> list[str]:
        prices = [costs.get(method, {}).get(x, np.nan) for x in ("run_seconds", "few_step_seconds", "peak_mb")]
        cells = [f"`{method}`", *(f"{x:.0f}" if np.isfinite(x) else "" for x in prices)]
        for row in (found[method, reward] for reward in rewards):
            gained = row and f"{marked(row['gain'], row['seeds'])} ({seeds_of(results, method, row['reward'])})"
            cells += [gained, marked(row.get("oracle"), row["seeds"])] if row else [NOT_MEASURED, ""]
        return cells

    heads = ["method", "run, s", "few-step model, s", "peak MB"]
    heads += [head for reward in rewards for head in (f"{reward}, gain", "oracle")]
    return piped([heads, ["---"] * len(heads), *map(line, sorted(methods, key=gain, reverse=True))])


def with_intervals(row: dict) -> dict:
    """A table's row; what has two ends beside it becomes an Interval."""
    ends = {name for name in row if f"{name}_low" in row and f"{name}_high" in row}
    return row | {name: Interval(*(row[name + end] for end in ("", "_low", "_high"))) for name in ends}


def value(x: float | Interval) -> float:
    return x.value if isinstance(x, Interval) else x


def ratio(x: float | Interval, y: float | Interval) -> float | Interval:
    """Of positive numbers, or of Intervals."""
    return x.over(y) if isinstance(x, Interval) and isinstance(y, Interval) else value(x) / value(y)


# -- rendering


def shown(x: object) -> object:
    """What a template shows without a filter: whole numbers as such, and no other number."""
    if isinstance(x, float) and x.is_integer():
        return int(x)
    if isinstance(x, float | Interval):
        raise InputError(f"{x!r} needs a filter, such as '| plain(2)'")
    return x


def extent(values: Iterable[float | Interval], digits: int = 3, sign: str = "+") -> str:
    """Least and largest; one of them where they look the same."""
    if not (values := [value(x) for x in values]):
        raise NotMeasured("there is nothing to give the extent of")
    return " to ".join(dict.fromkeys(f"{x:{sign}.{digits}f}" for x in (min(values), max(values))))


FILTERS = {
    "plain": lambda x, digits=3, sign="": f"{value(x):{sign}.{digits}f}",
    "signed": lambda x, digits=3: f"{value(x):+.{digits}f}",
    "interval": lambda x, digits=3, sign="+": f"{x:{sign}.{digits}f}",
    "ends": lambda x, digits=3, sign="+": "[" + f"{x:{sign}.{digits}f}".partition("[")[2],
    "percent": lambda x, digits=0: f"{value(x):.{digits}%}",
    "thousands": lambda x: f"{value(x):,.0f}",
    "word": lambda x: WORDS[round(x)] if 0 <= round(x) < len(WORDS) else str(round(x)),
    "extent": extent,
}


def environment(numbers: Numbers, folder: Path = TEMPLATES) -> jinja2.Environment:
    """The templates of a folder, with what they can ask and the filters above."""
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True, "finalize": shown}
    made = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), undefined=jinja2.StrictUndefined, **options)
    made.globals |= {name: getattr(numbers, name) for name in dir(numbers) if name[0] != "_"}
    made.filters |= FILTERS
    return made


@contextlib.contextmanager
def located(folder: Path) -> Iterator[None]:
    """What goes wrong within a template, in one line that names the template and its line. Raises InputError."""
    try:
        yield
    except (jinja2.TemplateError, InputError, TypeError, ValueError, KeyError) as error:
        frames = traceback.extract_tb(rewrite_traceback_stack().__traceback__)
        places = [(frame.filename, frame.lineno) for frame in frames]
        if isinstance(error, jinja2.TemplateSyntaxError):
            places.append((error.filename, error.lineno))
        here = next((f"{name}, line {line}: " for name, line in reversed(places) if str(folder) in str(name)), "")
        raise (NotMeasured if isinstance(error, NotMeasured) else InputError)(f"{here}{error}") from None


# -- the records that the texts are about


def digest(results: Results) -> str:
    """A hash of which runs there are, how they ended, and with which reward."""
    ends = zip(results.runs.folder, results.runs.get("status", []), results.runs.get("reward_after", []), strict=True)
    runs = sorted((Path(folder).relative_to(results.root).as_posix(), *end) for folder, *end in ends)
    return hashlib.sha256(repr(runs).encode()).hexdigest()[:16]


def written_about(results: Results, folder: Path = TEMPLATES) -> bool:
    """Whether the templates' texts were written about these records."""
    return (read_json(folder / WRITTEN_ABOUT) or {}).get(results.suite) == digest(results)


@functools.lru_cache(maxsize=4)
def _claims(results: Results, folder: Path) -> jinja2.Environment:
    return environment(Numbers(results), folder)


def about(claim: str, results: Results, folder: Path = TEMPLATES) -> dict[str, str]:
    """The texts of a claim, ``caveat`` and ``explanation``.

    Empty where the claim has none, where a text asks for what was not measured, and where the records are others.
    """
    texts = dict.fromkeys(("caveat", "explanation"), "")
    if not (folder / f"claims/{claim}.md").is_file() or not written_about(results, folder):
        return texts
    for name in texts:
        with contextlib.suppress(NotMeasured), located(folder):
            template = _claims(results, folder).get_template(f"claims/{claim}.md")
            if name in template.blocks:
                text = "".join(template.blocks[name](template.new_context()))
                texts[name] = " ".join(text.split()) + "\n"
    return texts

"""A table: its numbers, the strings that people read, and the files that it becomes."""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import pandas as pd
import yaml

from ...records import write_text
from ...records.results import Results
from ...statistics import Interval

FILES = [Path(__file__).parents[1] / name for name in ("words.yaml", "published.yaml")]
WORDS, PUBLISHED = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES)
NOT_MEASURED = "not measured"
ONE_SEED = "†"
ONE_SEED_NOTE = f"{ONE_SEED}: of a single seed, for new prompts alone, so narrower than it would be for new seeds too."


class Linked(str):
    """What a table shows in a cell, with the folders of the runs behind it."""

    runs: list[str]

    def __new__(cls, text: str, runs: pd.DataFrame) -> Self:
        linked = super().__new__(cls, text)
        linked.runs = runs.folder.tolist()
        return linked


def flat(row: dict) -> dict:
    """A row of numbers whose Intervals have become columns: the name, with ``_low`` and with ``_high``."""
    parts = (x.row(name) if isinstance(x, Interval) else {name: x} for name, x in row.items())
    return {name: x for part in parts for name, x in part.items()}


def marked(interval: Interval | None, seeds: int, digits: int = 3) -> str:
    """An interval in words, marked where it is of one seed alone; empty where there is none."""
    return "" if interval is None else f"{interval:+.{digits}f}" + ONE_SEED * (seeds == 1)


def piped(rows: Iterable[Iterable]) -> list[str]:
    """Rows as lines of a Markdown table; the second is the rule below the heads."""
    return ["| " + " | ".join(map(str, row)) + " |" for row in rows]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: ``frame`` has its numbers, ``shown`` the strings that people read, in the same or another shape.

    runs       folders behind a shown cell, by (row, column) of ``shown``
    published  rows of the paper that stand below, in the same columns
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    shown: pd.DataFrame
    runs: dict[tuple[int, str], list[str]] = dataclasses.field(default_factory=dict)
    published: list[list[str]] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, results: Results, name: str, rows: list[dict] | pd.DataFrame, shown: list[dict], **words) -> Self:
        """A table whose title and note stand in words.yaml, and its published rows, if any, in published.yaml.

        rows   numbers and Intervals
        shown  strings, some of them Linked; what a line lacks is empty
        words  what the note has to be filled with, beside suite and profile
        """
        words |= {"suite": results.suite, "profile": results.profile, "published": WORDS["published"]}
        title, note = (WORDS[name][part].format(**words) for part in ("title", "note"))
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame([flat(row) for row in rows])
        cells = [(i, column, x) for i, line in enumerate(shown) for column, x in line.items()]
        runs = {(i, column): x.runs for i, column, x in cells if isinstance(x, Linked)}
        lines = pd.DataFrame(shown).fillna("")
        return cls(name, title, note, frame, lines, runs, published(name, list(lines)))

    @classmethod
    def missing(cls, results: Results, name: str, *columns: str) -> Self:
        """A table of what was not measured."""
        title = WORDS[name]["title"].format(suite=results.suite)
        return cls(name, title, "Not measured.", pd.DataFrame(), pd.DataFrame(columns=list(columns)))

    def __post_init__(self) -> None:
        if any(ONE_SEED in str(cell) for cell in self.shown.to_numpy().ravel()):
            object.__setattr__(self, "note", f"{self.note} {ONE_SEED_NOTE}")

    def lines(self) -> list[str]:
        rows = [self.shown.columns, ["---"] * self.shown.shape[1], *self.shown.itertuples(index=False), *self.published]
        return piped(rows)

    def markdown(self) -> str:
        return "\n".join([f"# {self.title}", "", self.note, "", *self.lines(), ""])

    def latex(self) -> str:
        whole = pd.DataFrame([*self.shown.values.tolist(), *self.published], columns=self.shown.columns)
        caption = escaped(f"{self.title.rstrip('.')}. {self.note}")
        body = escaped(whole.to_latex(index=False, escape=True), "|†≤≥")
        return f"\\begin{{table}}\n\\caption{{{caption}}}\n\\label{{tab:{self.name}}}\n{body}\\end{{table}}\n"


def published(name: str, columns: list[str]) -> list[list[str]]:
    """The published rows of a table, as far as they have something for one of its columns."""
    rows = [row for row in PUBLISHED.get(name, []) if any(column in row for column in columns[1:])]
    firsts = [f"{row['method']} (published{row.get('said', '')})" for row in rows]
    return [[first, *(str(row.get(x, "")) for x in columns[1:])] for first, row in zip(firsts, rows, strict=True)]


LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "|": "$|$", "†": r"\dag{}", "≤": r"$\leq$", "≥": r"$\geq$"}


def escaped(text: str, characters: str = "".join(LATEX)) -> str:
    """Text for LaTeX, with these of its special characters replaced."""
    return "".join(LATEX[c] if c in LATEX and c in characters else c for c in text)


def write(tables: list[Table], folder: Path) -> None:
    """CSV, Markdown and LaTeX of every table; what is not among them goes from the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for table in tables:
        frame = table.frame if len(table.frame.columns) else pd.DataFrame(columns=table.shown.columns)
        csv = frame.to_csv(index=False, float_format="%.6g")
        for ending, text in (("csv", csv), ("md", table.markdown()), ("tex", table.latex())):
            write_text(folder / f"{table.name}.{ending}", text)

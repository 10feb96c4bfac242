"""A table: its numbers, the strings that people read, and the files that it becomes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ...records import write_text

NOT_MEASURED = "not measured"
ONE_SEED = "†"
ONE_SEED_NOTE = f"{ONE_SEED}: of a single seed, for new prompts alone, so narrower than it would be for new seeds too."


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


LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": "$|$", "†": r"\dag{}", "≤": r"$\leq$",
         "≥": r"$\geq$"}  # fmt: skip


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

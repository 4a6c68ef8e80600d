"""What an experiment found: checks that hold or do not, tables, figures, and an answer in words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Cell = str | int | float | None  # None: there is no value


@dataclass(frozen=True)
class Check:
    """Something that must hold. `said` is what was seen, and where it does not hold what may be the reason."""

    name: str
    holds: bool
    said: str


@dataclass(frozen=True)
class ResultTable:
    """Rows of cells, one for each column; numbers are shown with `decimals`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    decimals: int = 2

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.title


@dataclass(frozen=True)
class Line:
    """A named line, group of bars, or set of points of a figure. `error` is the half length of each one's interval."""

    name: str
    x: tuple[str | int | float, ...]
    y: tuple[float | None, ...]
    error: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class ResultFigure:
    """Lines, bars or points, with what is on the axes."""

    title: str
    kind: Literal["lines", "bars", "points"]
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """All that the report of an experiment shows. `setting` says on what it was run, in words by name."""

    experiment: str
    question: str
    answer: str
    setting: Mapping[str, str]
    checks: tuple[Check, ...] = ()
    tables: tuple[ResultTable, ...] = ()
    figures: tuple[ResultFigure, ...] = ()
    measured: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)  # an entry each arm and seed, for programs

    @property
    def holds(self) -> bool:
        """Whether every check does."""
        return all(check.holds for check in self.checks)


def outcome_json(outcome: Outcome, made: str) -> dict[str, Any]:
    """The outcome as plain JSON values."""
    return {"made": made, "holds": outcome.holds, **asdict(outcome)}


def cell_text(cell: Cell, decimals: int) -> str:
    """A cell as it is shown: whole numbers with thousands' commas, `–` where there is none."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.{decimals}f}"
    return f"{cell:,}" if isinstance(cell, int) else cell

"""An outcome on a terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mufun_jax.experiment.outcome import Outcome, ResultTable, cell_text
from mufun_jax.report.wording import plain

_MOST_ROWS = 24  # of a table; the page has all


def outcome_tables(outcome: Outcome) -> RenderableType:
    """The question, the tables, the checks, and the answer."""
    parts: list[RenderableType] = [Text(plain(outcome.question), style="bold")]
    parts += [_table(table) for table in outcome.tables]
    for check in outcome.checks:
        mark, style = ("holds", "green") if check.holds else ("DOES NOT HOLD", "red")
        parts.append(Text.assemble((f"{mark:<14}", style), plain(f"{check.name}: {check.said}")))
    parts.append(Text(plain(outcome.answer), style="bold"))
    return Group(*parts)


def _table(table: ResultTable) -> Table:
    """Of more rows than a screen holds the first and the last."""
    drawn = Table(title=Text(plain(table.title)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(table.columns):
        drawn.add_column(Text(plain(column)), justify="right" if number else "left", overflow="fold")
    rows, half = list(table.rows), _MOST_ROWS // 2
    left_out = len(rows) - _MOST_ROWS
    shown = rows if left_out <= 0 else [*rows[:half], None, *rows[-half:]]
    for row in shown:
        cells = [f"{left_out} more"] if row is None else [cell_text(cell, table.decimals) for cell in row]
        drawn.add_row(*(Text(plain(cell)) for cell in cells))
    return drawn

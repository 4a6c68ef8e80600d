"""What was prepared, as a table."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table


def prepared_table(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row a set and split. `kept out` is audio of an evaluation; `bad`, of all splits together, was left out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("set", no_wrap=True)
    table.add_column("split", no_wrap=True)
    for name in ("shards", "examples", "hours", "twice\nthere", "kept\nout", "bad"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, report in reports.items():
        rejected = str(len(report["rejected"]))
        for split, content in report["splits"].items():
            counts = (len(content["shards"]), content["examples"], f"{content['hours']:.2f}")
            found = (len(content["duplicates"]), len(content["leaked"]))
            table.add_row(name, split, *map(str, counts + found), rejected)
            name = rejected = ""
    return table

"""JSON lines of a run that may be writing them still: what cannot be read is counted, not fatal."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class JsonLines:
    """Iterates over the objects of a file, one a line, without holding the file in memory.

    A last line without its end was cut short by a kill, or is being written: it is left out. Other lines that are no
    JSON objects are left out too, and counted in `unreadable`: a session that goes on after a kill may have written on
    where the cut line ends. A file that is not there has no lines.
    """

    def __init__(self, path: Path):
        self.path = path
        self.unreadable = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    continue
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError):
                    found = None
                if isinstance(found, dict):
                    yield found
                elif line.endswith("\n"):
                    self.unreadable += 1

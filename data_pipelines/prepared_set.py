"""A prepared set, as training reads it: its index once, and then any record by its number."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain

from data_pipelines.record import Record
from data_pipelines.tf_example import RecordError
from mufun_jax.errors import ManifestError, nearest

_VERSION = "1.0.0"


@dataclass(frozen=True)
class IndexLine:
    """What the index says of one record: its number in the set, samples of each file, and the examples about it."""

    record: int
    samples: tuple[int, ...]
    examples: tuple[dict[str, Any], ...]


class PreparedSet:
    """One split of a set that `mufun prepare` wrote to `folder`."""

    def __init__(self, folder: Path, name: str, split: str = "train"):
        """Raises ManifestError where there is no such set, it is not complete, or files of it are missing or short."""
        self.name = name
        self._folder = folder / name / _VERSION
        if not (self._folder / "dataset_info.json").is_file():
            there = sorted(info.parent.parent.name for info in folder.glob(f"*/{_VERSION}/dataset_info.json"))
            unfinished = "is not complete: run `mufun prepare` again" if self._folder.is_dir() else "is no prepared set"
            raise ManifestError(
                f"{folder / name} {unfinished}{nearest(name, there)}; there are: {', '.join(there) or 'none'}"
            )
        report = json.loads((self._folder / "report.json").read_text(encoding="utf-8"))
        if split not in report["splits"]:
            raise ManifestError(f"{self._folder}: no split {split!r}; there are {', '.join(report['splits'])}")
        content = report["splits"][split]
        self.duplicates = frozenset(d["record"] for d in content["duplicates"] if d["left_out"])
        self.shards = [self._folder / shard["file"] for shard in content["shards"]]
        self._records = [int(shard["records"]) for shard in content["shards"]]
        for path, shard in zip(self.shards, content["shards"], strict=True):
            size = path.stat().st_size if path.is_file() else None
            if size != shard["bytes"]:
                found = "is missing" if size is None else f"has {size} bytes, not {shard['bytes']}"
                raise ManifestError(f"{path}: {found}; run `mufun prepare` again, which mends it")
        self._source = grain.sources.ArrayRecordDataSource([str(path) for path in self.shards])

    @property
    def records(self) -> int:
        return sum(self._records)

    def index(self) -> Iterator[IndexLine]:
        """Every record but those that say what an earlier one says about the same audio."""
        number = 0
        for path in self.shards:
            index = path.with_name(path.name.replace(".array_record-", ".index-") + ".jsonl")
            with index.open(encoding="utf-8") as lines:
                for line in lines:
                    values = json.loads(line)
                    if number not in self.duplicates:
                        yield IndexLine(number, tuple(values["samples"]), tuple(values["examples"]))
                    number += 1
        if number != self.records:
            raise ManifestError(f"{self._folder}: the index has {number} records, the shards {self.records}")

    def read(self, record: int) -> Record:
        """A record by its number. Raises RecordError, with shard and record, where the bytes are damaged."""
        try:
            return Record.from_bytes(self._source[record])
        except (RuntimeError, IndexError, RecordError) as error:  # RuntimeError: a checksum does not match
            shard, number = 0, record
            while number >= self._records[shard]:
                number -= self._records[shard]
                shard += 1
            first_line = str(error).splitlines()[0][:200]
            raise RecordError(
                f"{self.shards[shard]}, record {number}: damaged ({first_line}); `mufun prepare --verify` mends it"
            ) from None

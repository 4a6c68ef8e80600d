"""A prepared set, as training reads it: its index once, and then any record by its number."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grain
from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from data_pipelines.record import Record
from data_pipelines.shard import VERSION, sha256_of
from data_pipelines.tf_example import RecordError
from mufun_jax.errors import ManifestError, nearest

MEND = "run `mufun prepare` again, which mends it"


@dataclass(frozen=True)
class IndexLine:
    """What the index says of one record: its number in the set, samples of each file, and the examples about it."""

    record: int
    samples: tuple[int, ...]
    examples: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class _Shard:
    file: Annotated[str, Field(pattern=r"^[\w.-]+$")]  # a name in the set's folder, and no path
    records: NonNegativeInt
    bytes: NonNegativeInt
    sha256: str
    index_sha256: str


@dataclass(frozen=True)
class _Duplicate:
    record: NonNegativeInt
    left_out: bool


@dataclass(frozen=True)
class _Split:
    """What is read of a split's report."""

    shards: Annotated[list[_Shard], Field(min_length=1)]
    duplicates: list[_Duplicate]


@dataclass(frozen=True)
class _Report:
    splits: dict[str, _Split]


class PreparedSet:
    """One split of a set that `mufun prepare` wrote to `folder`."""

    def __init__(self, folder: Path, name: str, split: str = "train"):
        """Raises ManifestError where there is no such set, it is not complete, or files of it are missing or short."""
        self.name = name
        self._folder = folder / name / VERSION
        if not (self._folder / "dataset_info.json").is_file():
            there = sorted(info.parent.parent.name for info in folder.glob(f"*/{VERSION}/dataset_info.json"))
            unfinished = "is not complete: run `mufun prepare` again" if self._folder.is_dir() else "is no prepared set"
            raise ManifestError(
                f"{folder / name} {unfinished}{nearest(name, there)}; there are: {', '.join(there) or 'none'}; "
                "`mufun prepare` makes them"
            )
        content = _read_report(self._folder / "report.json", split)
        self.duplicates = frozenset(duplicate.record for duplicate in content.duplicates if duplicate.left_out)
        self.shards = [self._folder / shard.file for shard in content.shards]
        self._records = [shard.records for shard in content.shards]
        self.hashes = [shard.sha256 for shard in content.shards]
        self._index_hashes = [shard.index_sha256 for shard in content.shards]
        for path, shard in zip(self.shards, content.shards, strict=True):
            size = path.stat().st_size if path.is_file() else None
            if size != shard.bytes:
                found = "is missing" if size is None else f"has {size} bytes, not {shard.bytes}"
                raise ManifestError(f"{path}: {found}; {MEND}")
        self._source = grain.sources.ArrayRecordDataSource([str(path) for path in self.shards])

    @property
    def records(self) -> int:
        return sum(self._records)

    def index(self) -> Iterator[IndexLine]:
        """Every record but those that say what an earlier one says about the same audio.

        Raises ManifestError where an index is not as it was written.
        """
        number = 0
        for path, records, written in zip(self.shards, self._records, self._index_hashes, strict=True):
            index = path.with_name(path.name.replace(".array_record-", ".index-") + ".jsonl")
            if not index.is_file() or sha256_of(index) != written:
                raise ManifestError(f"{index}: missing or damaged; {MEND}")
            with index.open(encoding="utf-8") as lines:
                for place, line in enumerate(lines):
                    values = json.loads(line)
                    if number + place not in self.duplicates:
                        yield IndexLine(number + place, tuple(values["samples"]), tuple(values["examples"]))
            number += records

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


def _read_report(file: Path, split: str) -> _Split:
    try:
        splits = TypeAdapter(_Report).validate_json(file.read_bytes()).splits
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ManifestError(f"{file}: missing or damaged ({reason}); {MEND}") from None
    if split not in splits:
        raise ManifestError(f"{file}: no split {split!r}; there are {', '.join(splits)}")
    return splits[split]

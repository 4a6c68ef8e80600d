"""Which examples go into which shard: decided once, before any audio is read, from the sources alone."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from data_pipelines.manifest import Example
from data_pipelines.shard import PlannedRecord, PlannedShard


def plan_records(examples: Iterable[tuple[str, Example]], root: Path) -> list[PlannedRecord]:
    """One record for all examples about the same audio, in the order in which the audio came first.

    `examples` are pairs of where an example stood and the example; `root` is the folder that their paths lie in.
    Examples without audio are records of their own.
    """
    together: dict[tuple[Path, ...] | int, list[tuple[str, Example]]] = {}
    for number, (where, example) in enumerate(examples):
        together.setdefault(example.audio or number, []).append((where, example))
    return [_record(group, root) for group in together.values()]


def plan_shards(
    records: list[PlannedRecord], folder: Path | str, name: str, split: str, shard_bytes: int
) -> list[PlannedShard]:
    """Shards of about `shard_bytes` of audio files each, in order; at least one record a shard."""
    groups = list(_groups(records, shard_bytes))
    return [
        PlannedShard(str(folder), name, split, number, len(groups), tuple(group)) for number, group in enumerate(groups)
    ]


def _record(group: list[tuple[str, Example]], root: Path) -> PlannedRecord:
    audio = group[0][1].audio
    names = tuple(path.relative_to(root).as_posix() for path in audio)
    return PlannedRecord(audio, names, tuple(example for _, example in group), tuple(where for where, _ in group))


def _groups(records: list[PlannedRecord], shard_bytes: int) -> Iterator[list[PlannedRecord]]:
    group: list[PlannedRecord] = []
    filled = 0
    for record in records:
        size = record.file_bytes
        if group and filled + size > shard_bytes:
            yield group
            group, filled = [], 0
        group.append(record)
        filled += size
    if group:
        yield group

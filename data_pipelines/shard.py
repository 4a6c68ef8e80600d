"""One shard: which examples belong in it, and how it is written, once and whole, the same bytes every time.

A shard is three files. `NAME-SPLIT.array_record-00003-of-00010` holds the records; `….index-….jsonl` has a line for
each record, in order; `….summary-….json` is written last and says what the others must be. A shard with a summary is
finished.
"""

import hashlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from jaxtyping import Int16
from pydantic import TypeAdapter, ValidationError

from data_pipelines.manifest import Example, Rejected
from data_pipelines.record import Encoding, Record, content_hash, encode_audio
from mufun_jax.audio.waveform import SHORTEST, load_waveform
from mufun_jax.audio.windows import to_int16
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import AudioError, ManifestError

FORMAT = 1
VERSION = "1.0.0"  # of the layout, and a folder in a set's path: tensorflow_datasets wants one there
_WRITER_OPTIONS = "group_size:1,uncompressed"  # each record is read by itself; FLAC does not get smaller
_TELL_SECONDS = 0.3  # between two notes of how far a shard is
_MOST_ANSWERS = 100  # distinct answers of a task in a report; captions are all distinct
_OPTION = ("A. ", "B. ", "C. ", "D. ")


@dataclass(frozen=True)
class PlannedRecord:
    """Audio files heard together and the examples about them. `where[i]` is how messages name `examples[i]`."""

    audio: tuple[Path, ...]
    names: tuple[str, ...]  # of the files, as the source calls them
    examples: tuple[Example, ...]
    where: tuple[str, ...]

    @property
    def file_bytes(self) -> int:
        return sum(path.stat().st_size if path.is_file() else 0 for path in self.audio)


@dataclass(frozen=True)
class ShardOptions:
    """How audio is read and stored."""

    encoding: Encoding = "flac"
    longest: float = 7200.0  # seconds; a longer file is rejected, never cut
    tolerate_damage: bool = False
    strict: bool = False
    verify: bool = False  # read finished shards again and compare their checksums


@dataclass(frozen=True)
class PlannedShard:
    """Shard `number` of `count` of a split, and all that goes into it."""

    folder: str
    name: str
    split: str
    number: int
    count: int
    records: tuple[PlannedRecord, ...]

    def file(self, kind: str, suffix: str = "") -> epath.Path:
        """One of the shard's files: kind is `array_record`, `index` or `summary`."""
        numbered = f"{self.number:05d}-of-{self.count:05d}"
        return epath.Path(self.folder) / f"{self.name}-{self.split}.{kind}-{numbered}{suffix}"

    @property
    def progress_file(self) -> epath.Path:
        return epath.Path(self.folder) / f".{self.name}-{self.split}-{self.number:05d}.progress"

    def fingerprint(self, options: ShardOptions) -> str:
        """Changes where anything does that the shard's bytes depend on: examples, files, options."""
        files = [[_identity(path) for path in record.audio] for record in self.records]
        entries = [[to_entry(example, record.names) for example in record.examples] for record in self.records]
        what = [FORMAT, self.name, self.split, self.number, self.count, entries, files]
        what += [options.encoding, options.longest, options.tolerate_damage]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


@dataclass
class ShardSummary:
    """What a finished shard holds, and what was left out of it and why."""

    plan: str
    records: int = 0
    examples: int = 0
    seconds: float = 0.0
    shard_bytes: int = 0
    shard_sha256: str = ""
    index_sha256: str = ""
    rejected: list[dict[str, str]] = field(default_factory=list)  # where, reason
    leaked: list[dict[str, str]] = field(default_factory=list)  # where, sha256: it is an evaluation's audio
    warnings: list[str] = field(default_factory=list)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)


_SUMMARY = TypeAdapter(ShardSummary)


def write_shard(plan: PlannedShard, options: ShardOptions, evaluation: frozenset[str]) -> ShardSummary:
    """Writes a shard, unless it is there already as it would be written.

    `evaluation` holds the content hashes of audio that evaluations use: no record with one of them is written.

    Raises:
        ManifestError: with `options.strict`, at the first bad example.
    """
    fingerprint = plan.fingerprint(options)
    finished = read_summary(plan.file("summary", ".json"))
    if finished is not None and finished.plan == fingerprint and _is_intact(plan, finished, evaluation, options):
        if options.strict and finished.rejected:
            raise ManifestError("{where}: {reason}".format(**finished.rejected[0]))
        return finished
    plan.file("summary", ".json").unlink(missing_ok=True)
    summary = ShardSummary(fingerprint)
    labels: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(dir=_local(plan.folder), prefix=f".{plan.name}-{plan.split}-") as aside:
        shard, index = Path(aside) / "shard", Path(aside) / "index"
        writer = ArrayRecordWriter(str(shard), _WRITER_OPTIONS)
        with index.open("w", encoding="utf-8") as lines:
            done, told = 0, time.monotonic()
            for planned in plan.records:
                made = _make_record(planned, options, evaluation, summary)
                if made is not None:
                    record, line = made
                    writer.write(record.to_bytes())
                    lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                    _count(summary, line, labels)
                done += planned.file_bytes
                if time.monotonic() > told + _TELL_SECONDS:
                    plan.progress_file.write_text(str(done))
                    told = time.monotonic()
        writer.close()
        summary.shard_bytes, summary.shard_sha256 = shard.stat().st_size, sha256_of(shard)
        summary.index_sha256 = sha256_of(index)
        summary.labels = {task: dict(sorted(counts.items())) for task, counts in sorted(labels.items())}
        _publish(shard, plan.file("array_record"))
        _publish(index, plan.file("index", ".jsonl"))
        written = Path(aside) / "summary"
        written.write_text(json.dumps(asdict(summary), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _publish(written, plan.file("summary", ".json"))
    plan.progress_file.unlink(missing_ok=True)
    return summary


def forget_other(plan: PlannedShard, options: ShardOptions) -> None:
    """Takes the summary of a shard away that was written by another plan: it does not count as finished any more."""
    finished = read_summary(plan.file("summary", ".json"))
    if finished is not None and finished.plan != plan.fingerprint(options):
        plan.file("summary", ".json").unlink()


def read_summary(file: epath.Path) -> ShardSummary | None:
    """The summary in a file, or None where there is no readable one: then the shard is not finished."""
    try:
        return _SUMMARY.validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def read_hashes(index: epath.Path) -> Iterator[str]:
    """The content hashes in a shard's index."""
    with index.open("r") as lines:
        for line in lines:
            try:
                yield from json.loads(line)["sha256"]
            except (ValueError, KeyError, TypeError):
                raise ManifestError(f"{index}: damaged; remove its set, or prepare it again with --verify") from None


def to_entry(example: Example, names: tuple[str, ...]) -> dict[str, Any]:
    """An example in the original's JSON form. Its files are called by `names`."""
    entry: dict[str, Any] = {"id": example.id}
    if names:
        entry["audio"] = _one_or_list(names)
    if any(example.segments):
        times = [list(segment) if segment else None for segment in example.segments]
        entry["time"] = _one_or_list(times)
    entry["conversations"] = [
        {"from": speaker, "value": value}
        for turn in example.turns
        for speaker, value in (("human", turn.question), ("gpt", turn.answer))
    ]
    if example.tasks:
        entry["task"] = _one_or_list(example.tasks)
    return entry


def _one_or_list(values: Sequence[Any]) -> Any:
    return list(values) if len(values) > 1 else values[0]


def sha256_of(path: Path | epath.Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _make_record(
    planned: PlannedRecord, options: ShardOptions, evaluation: frozenset[str], summary: ShardSummary
) -> tuple[Record, dict[str, Any]] | None:
    """A record and its line of the index, or None where nothing of it can be used; `summary` says why."""
    files: list[Int16[np.ndarray, " samples"]] = []
    try:
        for path in planned.audio:
            waveform = load_waveform(path, max_seconds=options.longest, tolerate_damage=options.tolerate_damage)
            summary.warnings += waveform.warnings
            files.append(to_int16(waveform.samples))
    except AudioError as error:
        for where in planned.where:
            _reject(Rejected(where, str(error)), options, summary)
        return None
    hashes = [content_hash(samples) for samples in files]
    leaked = evaluation.intersection(hashes)
    if leaked:
        summary.leaked += [{"where": where, "sha256": min(leaked)} for where in planned.where]
        return None
    seconds = [len(samples) / SAMPLE_RATE for samples in files]
    kept = []
    for example, where in zip(planned.examples, planned.where, strict=True):
        wrong = _wrong_segment(example, seconds)
        if wrong is None:
            kept.append(to_entry(example, planned.names))
        else:
            _reject(Rejected(where, wrong), options, summary)
    if not kept:
        return None
    record = Record(tuple(encode_audio(samples, options.encoding) for samples in files), options.encoding, tuple(kept))
    line = {"samples": [len(samples) for samples in files], "seconds": seconds, "sha256": hashes, "examples": kept}
    return record, line


def _wrong_segment(example: Example, seconds: list[float]) -> str | None:
    for segment, length in zip(example.segments, seconds, strict=True):
        if segment is not None and segment[0] + SHORTEST > length:
            return f"time {list(segment)} begins where the audio ends, at {length:.3f} s"
        if segment is not None and segment[1] - segment[0] < SHORTEST:
            return f"time {list(segment)} is shorter than {SHORTEST} s"
    return None


def _reject(rejected: Rejected, options: ShardOptions, summary: ShardSummary) -> None:
    if options.strict:
        raise ManifestError(str(rejected))
    summary.rejected.append(asdict(rejected))


def _count(summary: ShardSummary, line: dict[str, Any], labels: dict[str, Counter[str]]) -> None:
    summary.records += 1
    summary.examples += len(line["examples"])
    summary.seconds += sum(line["seconds"])
    for entry in line["examples"]:
        answers = [message["value"] for message in entry["conversations"][1::2]]
        tasks = entry.get("task", "unnamed")
        for task, answer in zip(tasks if isinstance(tasks, list) else [tasks] * len(answers), answers, strict=True):
            counts = labels.setdefault(task, Counter())
            label = bare_answer(answer)
            label = label if label in counts or len(counts) < _MOST_ANSWERS else "(others)"
            counts[label] += 1


def bare_answer(answer: str) -> str:
    """`disco` of `B. disco`."""
    return answer[3:] if answer.startswith(_OPTION) else answer


def _is_intact(plan: PlannedShard, finished: ShardSummary, evaluation: frozenset[str], options: ShardOptions) -> bool:
    """Whether a finished shard is still all there, and holds no audio that has become an evaluation's since."""
    shard, index = plan.file("array_record"), plan.file("index", ".jsonl")
    if not shard.exists() or not index.exists() or shard.stat().length != finished.shard_bytes:
        return False
    if sha256_of(index) != finished.index_sha256:
        return False
    if options.verify and sha256_of(shard) != finished.shard_sha256:
        return False
    if not all(leak["sha256"] in evaluation for leak in finished.leaked):
        return False  # what was an evaluation's is no longer
    return evaluation.isdisjoint(read_hashes(index))


def _identity(path: Path) -> list[Any]:
    """What tells that a file was changed, without reading it."""
    status = path.stat() if path.is_file() else None
    return [str(path), status.st_size, status.st_mtime_ns] if status else [str(path)]


def _local(folder: str) -> str | None:
    """The folder, where it is on this machine's disks: a file written there is renamed, not copied."""
    return None if "://" in folder else folder


def _publish(written: Path, target: epath.Path) -> None:
    """Puts a file that is whole in its place, at once."""
    if "://" in str(target):
        epath.Path(written).copy(target, overwrite=True)  # an object of a bucket appears when it is whole
        return
    with written.open("rb") as file:
        os.fsync(file.fileno())
    written.replace(str(target))

"""From sources to prepared sets: plan, write, then look at all of it together and report.

DIR/gtzan/1.0.0/   gtzan-train.array_record-00000-of-00004, its index and summary, …
                   report.json, and dataset_info.json and features.json, with which tensorflow_datasets reads it
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from etils import epath
from filelock import FileLock, Timeout

from data_pipelines.manifest import Example, Rejected, listed, read_entries
from data_pipelines.record import TFDS_FEATURES, content_hash
from data_pipelines.shard import (
    FORMAT,
    VERSION,
    PlannedShard,
    ShardOptions,
    ShardSummary,
    bare_answer,
    read_hashes,
    read_summary,
)
from data_pipelines.shard_plan import plan_records, plan_shards
from data_pipelines.source import Source
from data_pipelines.sources.data_set import Split
from mufun_jax.audio.waveform import load_waveform
from mufun_jax.audio.windows import to_int16
from mufun_jax.errors import ManifestError, UserError

EVALUATION_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class PrepareOptions:
    """`max_bad_fraction` of the examples may be bad; they are left out and reported."""

    shard: ShardOptions = field(default_factory=ShardOptions)
    shard_bytes: int = 256 << 20  # of audio files
    max_bad_fraction: float = 0.001
    seed: int = 0
    workers: int = 2
    beam_options: tuple[str, ...] = ()
    evaluation: tuple[Path, ...] = ()  # manifests whose audio must not be in a training shard

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_fraction <= 1:
            raise UserError(f"--max-bad-fraction {self.max_bad_fraction:g}: give a fraction from 0 to 1")
        if not 0 < self.shard.longest < float("inf"):
            raise UserError(f"--longest {self.shard.longest:g}: give seconds, more than 0")


@dataclass
class _PlannedSet:
    source: Source
    shards: dict[Split, list[PlannedShard]] = field(default_factory=dict)
    examples: int = 0  # good and bad
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def folder(self) -> epath.Path:
        return epath.Path(next(iter(self.shards.values()))[0].folder)


def prepare(
    sources: Sequence[Source],
    out: str | Path,
    options: PrepareOptions,
    *,
    progress: Callable[..., None] = lambda done, total, note="": None,
) -> dict[str, dict[str, Any]]:
    """Prepares every source as a set of its own below `out`; returns their reports by name.

    The same sources give the same bytes, whatever the number of workers. What is finished already is not done again.
    `progress` gets the bytes of audio files that are done, and the bytes in all.

    Raises:
        ManifestError: a source cannot be read; more than `max_bad_fraction` of a set is bad; with `strict`, the first
            bad example; a training shard holds audio of an evaluation set of `out`.
        UserError: Apache Beam is not installed.
    """
    if find_spec("apache_beam") is None:
        raise UserError("preparing data needs Apache Beam; install it: pip install 'mufun_jax[prepare]'")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ManifestError(f"two sources are called {name!r}; a set is named after its source: rename one")
    if not str(out):
        raise UserError("--out is empty: name the folder for the prepared sets")
    with _locked(str(out)):
        return _prepare(sources, epath.Path(out), options, progress)


def _prepare(
    sources: Sequence[Source],
    out: epath.Path,
    options: PrepareOptions,
    progress: Callable[..., None],
) -> dict[str, dict[str, Any]]:
    from data_pipelines.to_array_record import write_shards  # Beam is an extra, and slow to import

    planned = [_plan(source, out, options) for source in sources]  # nothing is touched before all of them are read
    shards = [shard for each in planned for split in each.shards.values() for shard in split]
    named = frozenset(_hashes_of(options))
    known = named | frozenset(_evaluation_hashes(out, [source.name for source in sources]))
    for each in planned:
        _remove_leavings(each)
    write_shards(
        [shard for shard in shards if shard.split in EVALUATION_SPLITS],
        [shard for shard in shards if shard.split not in EVALUATION_SPLITS],
        options.shard,
        known=known,
        workers=options.workers,
        beam_options=options.beam_options,
        progress=progress,
    )
    reports = {each.source.name: _finish(each, options) for each in planned}
    _check_leaks(out, named)
    return reports


@contextmanager
def _locked(out: str) -> Iterator[None]:
    """One `mufun prepare` at a time in a folder of this machine."""
    if "://" in out:
        yield
        return
    Path(out).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(Path(out) / ".mufun-prepare.lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{out}: another `mufun prepare` is writing here; wait for it, or give another --out") from None


def _plan(source: Source, out: epath.Path, options: PrepareOptions) -> _PlannedSet:
    planned = _PlannedSet(source)
    examples: dict[Split, list[tuple[str, Example]]] = {}
    for split, where, example in source.entries():
        planned.examples += 1
        if isinstance(example, Example):
            examples.setdefault(split, []).append((where, example))
        elif options.shard.strict:
            raise ManifestError(f"{example} (--strict: it stops at the first)")
        else:
            planned.rejected.append(example)
    if not planned.examples:
        raise ManifestError(f"{source.name}: {source.root} holds no example")
    _check_bad(planned, planned.rejected, options)
    folder = out / source.name / VERSION
    _check_origin(folder, source)
    for split in get_args(Split):
        if split in examples:
            records = plan_records(examples[split], source.root)
            planned.shards[split] = plan_shards(records, str(folder), source.name, split, options.shard_bytes)
    return planned


def _check_origin(folder: epath.Path, source: Source) -> None:
    """A set is only replaced by one from the same place: two manifests may have the same name."""
    try:
        root = json.loads((folder / "report.json").read_text())["root"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    if root != str(source.root):
        raise ManifestError(
            f"{folder.parent} was prepared from {root}, not from {source.root}: give another --out, or remove it"
        )


def _check_bad(planned: _PlannedSet, rejected: Sequence[Rejected], options: PrepareOptions) -> None:
    """Raises ManifestError where too much of a set is bad."""
    fraction = len(rejected) / planned.examples
    if fraction > options.max_bad_fraction or len(rejected) == planned.examples:
        raise ManifestError(
            f"{planned.source.name}: {len(rejected)} of {planned.examples} examples are bad ({fraction:.2%}, more than "
            f"--max-bad-fraction {options.max_bad_fraction:g}; mend them, or raise it): {listed(rejected)}"
        )


def _finish(planned: _PlannedSet, options: PrepareOptions) -> dict[str, Any]:
    """Looks at all shards of a set together, writes its report and what tensorflow_datasets needs."""
    splits: dict[str, Any] = {}
    rejected = list(planned.rejected)
    for split, shards in planned.shards.items():
        summaries = [_summary_of(shard) for shard in shards]
        for summary in summaries:
            rejected += [Rejected(**bad) for bad in summary.rejected]
        splits[split] = _split_report(shards, summaries)
    _remove_stale(planned)
    report = {
        "format": FORMAT,
        "name": planned.source.name,
        "root": str(planned.source.root),
        "licence": planned.source.licence,
        "seed": options.seed,
        "hours": round(sum(split["hours"] for split in splits.values()), 4),
        "examples": planned.examples,
        "rejected": [{"where": bad.where, "reason": bad.reason} for bad in rejected],
        "splits": splits,
    }
    _write_json(planned.folder / "report.json", report)
    _check_bad(planned, rejected, options)
    _write_json(planned.folder / "features.json", TFDS_FEATURES)
    _write_json(planned.folder / "dataset_info.json", _dataset_info(planned, splits))
    return report


def _split_report(shards: Sequence[PlannedShard], summaries: Sequence[ShardSummary]) -> dict[str, Any]:
    labels: dict[str, Counter[str]] = {}
    for summary in summaries:
        for task, counts in summary.labels.items():
            labels.setdefault(task, Counter()).update(counts)
    return {
        "shards": [
            {"file": shard.file("array_record").name, "records": summary.records, "bytes": summary.shard_bytes}
            | {"sha256": summary.shard_sha256, "index_sha256": summary.index_sha256}
            for shard, summary in zip(shards, summaries, strict=True)
        ],
        "records": sum(summary.records for summary in summaries),
        "examples": sum(summary.examples for summary in summaries),
        "hours": round(sum(summary.seconds for summary in summaries) / 3600, 4),
        "labels": {task: dict(sorted(counts.items())) for task, counts in sorted(labels.items())},
        "duplicates": _duplicates(shards),
        "leaked": [leak for summary in summaries for leak in summary.leaked],
        "warnings": sorted({warning for summary in summaries for warning in summary.warnings}),
    }


def _duplicates(shards: Sequence[PlannedShard]) -> list[dict[str, Any]]:
    """Records whose audio an earlier record has, by content; one that also asks the same is left out of training."""
    first: dict[str, tuple[int, Any, set[str]]] = {}  # by content: number, file, and all that was told of it
    found = []
    for number, line in enumerate(_index_lines(shards)):
        if not line["sha256"]:
            continue
        told = hashlib.sha256("\n".join(_asked(line)).encode()).hexdigest()
        earlier, name, known = first.setdefault("".join(line["sha256"]), (number, _audio_of(line), set()))
        if earlier != number:
            audio = [_audio_of(line), name]
            found.append({"record": number, "of": earlier, "audio": audio, "left_out": told in known})
        known.add(told)
    return found


def _index_lines(shards: Sequence[PlannedShard]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        with shard.file("index", ".jsonl").open("r") as lines:
            yield from map(json.loads, lines)


def _audio_of(line: dict[str, Any]) -> Any:
    return line["examples"][0]["audio"]


def _asked(line: dict[str, Any]) -> list[str]:
    """What a record tells of its audio, without names of examples and files, nor wording where tasks are named."""
    told = []
    for entry in line["examples"]:
        messages = entry["conversations"]
        questions = entry.get("task") or [message["value"] for message in messages[::2]]
        answers = [bare_answer(message["value"]) for message in messages[1::2]]
        told.append(json.dumps([entry.get("time"), sorted(zip(_list(questions, len(answers)), answers, strict=True))]))
    return sorted(told)


def _list(task: Any, answers: int) -> list[str]:
    return task if isinstance(task, list) else [task] * answers


def _hashes_of(options: PrepareOptions) -> Iterator[str]:
    """Content hashes of all audio of evaluation manifests. A file that cannot be read raises AudioError."""
    files = {}
    for manifest in options.evaluation:
        for _, example in read_entries(manifest):
            if isinstance(example, Rejected):
                raise ManifestError(f"--evaluation {example}")
            files |= dict.fromkeys(example.audio)
    for file in files:
        yield content_hash(to_int16(load_waveform(file, max_seconds=options.shard.longest).samples))


def _evaluation_hashes(out: epath.Path, but: Sequence[str]) -> Iterator[str]:
    """Content hashes of the evaluation splits of all sets in a folder, finished or not, but of some sets."""
    for split in EVALUATION_SPLITS:
        for index in sorted(out.glob(f"*/{VERSION}/*-{split}.index-*.jsonl")):
            if index.parent.parent.name not in but:
                yield from read_hashes(index)


def _check_leaks(out: epath.Path, more: frozenset[str]) -> None:
    """Raises ManifestError where a training shard in a folder holds audio of an evaluation set, of any set there.

    That set is incomplete from then on: nothing trains on it.
    """
    evaluation = frozenset(_evaluation_hashes(out, ())) | more
    for index in sorted(out.glob(f"*/{VERSION}/*-train.index-*.jsonl")):
        if not evaluation.isdisjoint(read_hashes(index)):
            (index.parent / "dataset_info.json").unlink(missing_ok=True)
            raise ManifestError(
                f"{index}: audio of an evaluation set is in this training shard; prepare "
                f"{index.parent.parent.name!r} again, which leaves it out"
            )


def _summary_of(shard: PlannedShard) -> ShardSummary:
    summary = read_summary(shard.file("summary", ".json"))
    if summary is None:
        raise ManifestError(f"{shard.file('array_record')}: the pipeline ended without this shard; run it again")
    return summary


def _remove_leavings(planned: _PlannedSet) -> None:
    """What a killed run left half done; a set that is being prepared is not complete before its end."""
    (planned.folder / "dataset_info.json").unlink(missing_ok=True)
    for leaving in planned.folder.glob(f".{planned.source.name}-*"):
        leaving.unlink() if leaving.is_file() else shutil.rmtree(leaving)


def _remove_stale(planned: _PlannedSet) -> None:
    """Shards of an earlier, other plan."""
    ours = {
        shard.file(kind, suffix).name
        for shards in planned.shards.values()
        for shard in shards
        for kind, suffix in (("array_record", ""), ("index", ".jsonl"), ("summary", ".json"), ("plan", ".json"))
    }
    for file in planned.folder.glob(f"{planned.source.name}-*-of-*"):
        if file.name not in ours:
            file.unlink()


def _dataset_info(planned: _PlannedSet, splits: dict[str, Any]) -> dict[str, Any]:
    """As tensorflow_datasets writes it (DatasetInfo, in JSON)."""
    return {
        "name": planned.source.name,
        "version": VERSION,
        "description": "Music and questions about it, prepared by mufun_jax.",
        "redistributionInfo": {"license": planned.source.licence},
        "fileFormat": "array_record",
        "splits": [
            {
                "name": name,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(shard["records"]) for shard in split["shards"]],
                "numBytes": str(sum(shard["bytes"] for shard in split["shards"])),
            }
            for name, split in splits.items()
        ],
    }


def _write_json(file: epath.Path, content: Any) -> None:
    aside = file.parent / f".{file.name}"
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    aside.replace(file)

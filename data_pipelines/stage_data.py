"""The examples of a stage: the prepared sets of its mixture, every example measured, what fits no row left out."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from data_pipelines.encode import EncodedExample, ExampleEncoder
from data_pipelines.manifest import Rejected, checked, listed
from data_pipelines.mixture import Epochs, Mixture, make_order
from data_pipelines.prepared_set import MEND, IndexLine, PreparedSet
from data_pipelines.tf_example import RecordError
from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.errors import ManifestError


@dataclass(frozen=True)
class MeasuredSet:
    """The examples of one set that fit a row."""

    prepared: PreparedSet
    places: Int32[np.ndarray, "examples 2"]  # record of the set, and which of the record's examples
    sizes: Int32[np.ndarray, "examples 3"]  # positions, windows, targets
    seconds: Float32[np.ndarray, " examples"]  # of audio that are heard
    dropped_windows: Int32[np.ndarray, " examples"]  # audio that has no place in a row
    left_out: tuple[Rejected, ...]

    def load(self, number: int, encoder: ExampleEncoder) -> EncodedExample:
        """Reads, decodes and encodes an example. Raises RecordError where its shard is damaged."""
        record_number, which = self.places[number].tolist()
        record = self.prepared.read(record_number)
        where = f"{self.prepared.name}, record {record_number}"
        if which >= len(record.examples):
            raise RecordError(f"{where}: {len(record.examples)} examples, fewer than the index says; {MEND}")
        example = checked(record.examples[which], where, None)
        if isinstance(example, Rejected):
            raise RecordError(f"{example}; {MEND}")
        encoded = encoder.encode(example, record)
        size = (len(encoded.tokens), len(encoded.samples), len(encoded.targets))
        if size != tuple(self.sizes[number].tolist()):
            raise RecordError(f"{where}: is not what the index says of it; {MEND}")
        return encoded


@dataclass(frozen=True)
class StageData:
    """All sets of a stage, and the order in which their examples come."""

    sets: tuple[MeasuredSet, ...]
    order: Mixture | Epochs
    encoder: ExampleEncoder

    @cached_property
    def digest(self) -> str:
        """Changes where the sets, or what is made of them, do: a run cannot go on then."""
        found = hashlib.sha256()
        for measured in self.sets:
            found.update("".join(measured.prepared.hashes).encode())
            found.update(measured.places.tobytes() + measured.sizes.tobytes())
        return found.hexdigest()[:16]

    @property
    def left_out(self) -> list[Rejected]:
        """Examples that fit no row."""
        return [rejected for measured in self.sets for rejected in measured.left_out]


def measure_stage(
    run: RunConfig,
    stage: StageConfig,
    encoder: ExampleEncoder,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> StageData:
    """Opens the sets of a stage and measures every example; no audio is read. `progress` gets records done and in all.

    Raises:
        ManifestError: a set is missing or incomplete, or more than `run.max_bad_fraction` of the examples fit no row.
        ConfigError: the mixture draws nothing.
    """
    prepared = [PreparedSet(Path(run.data), name) for name in stage.mixture]
    total, done, sets = sum(one.records for one in prepared), 0, []
    for one in prepared:
        sets.append(measure_set(one, encoder, lambda records, before=done: progress(before + records, total)))
        done += one.records
    _check_left_out(sets, run.max_bad_fraction)
    order = make_order(
        stage.mixture,
        [len(measured.places) for measured in sets],
        [float(measured.seconds.mean()) if len(measured.seconds) else 0.0 for measured in sets],
        epochs=stage.epochs,
        weigh_by=stage.weigh_by,
        temperature=stage.temperature,
        seed=seed,
    )
    return StageData(tuple(sets), order, encoder)


def write_data_report(path: Path, data: StageData) -> None:
    """Writes what of each set a stage uses, and every example that fits no row, with the reason."""
    sets = {
        measured.prepared.name: {
            "examples": len(measured.places),
            "hours": round(float(measured.seconds.sum()) / 3600, 4),
            "duplicates_left_out": len(measured.prepared.duplicates),
            "dropped_windows": int(measured.dropped_windows.sum()),
            "left_out": [asdict(rejected) for rejected in measured.left_out],
        }
        for measured in data.sets
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sets, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def measure_set(
    prepared: PreparedSet, encoder: ExampleEncoder, progress: Callable[[int], None] = lambda records: None
) -> MeasuredSet:
    """Measures the examples of a set from its index."""
    places: list[tuple[int, int]] = []
    sizes: list[tuple[int, int, int]] = []
    seconds: list[float] = []
    left_out: list[Rejected] = []
    dropped: list[int] = []
    for line in prepared.index():
        for which, where in enumerate(_names_of(prepared, line)):
            example = checked(line.examples[which], where, None)
            try:
                if isinstance(example, Rejected):
                    raise ManifestError(example.reason)
                size = encoder.measure(example, line.samples)
            except ManifestError as error:
                left_out.append(Rejected(where, str(error)))
                continue
            places.append((line.record, which))
            sizes.append((size.positions, size.windows, size.targets))
            seconds.append(size.seconds)
            dropped.append(size.dropped_windows)
        progress(line.record + 1)
    return MeasuredSet(
        prepared,
        np.array(places, np.int32).reshape(-1, 2),
        np.array(sizes, np.int32).reshape(-1, 3),
        np.array(seconds, np.float32),
        np.array(dropped, np.int32),
        tuple(left_out),
    )


def _names_of(prepared: PreparedSet, line: IndexLine) -> list[str]:
    return [f"{prepared.name}, record {line.record} ({str(entry.get('id'))[:80]})" for entry in line.examples]


def _check_left_out(sets: Sequence[MeasuredSet], max_bad_fraction: float) -> None:
    left_out = [rejected for measured in sets for rejected in measured.left_out]
    total = len(left_out) + sum(len(measured.places) for measured in sets)
    if total and len(left_out) > max_bad_fraction * total:
        raise ManifestError(
            f"{len(left_out)} of {total} examples fit no row, more than max_bad_fraction {max_bad_fraction:g}: "
            f"{listed(left_out)}"
        )

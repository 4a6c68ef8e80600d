"""Writes data sets of TensorFlow Datasets into the layout that they are downloaded in, for the ordinary readers.

`tensorflow_datasets` fetches GTZAN, NSynth and the Groove MIDI data set by itself, and some already have them prepared.
`export_tfds` turns each example into a 16-bit WAV file and its row of metadata. A file that is there with the right
size is kept, so an export that was cut off goes on; each is written aside and renamed, so none is ever half written.

    gtzan    genres/blues/blues.00000.wav
    nsynth   nsynth-train/audio/<note>.wav, nsynth-train/examples.json
    groove   groove/info.csv, groove/drummer1/session1/1_funk_80_beat_4-4.wav and .mid
"""

import csv
import importlib
import io
import json
import re
import wave
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.sources.groove import WRITTEN_METERS, WRITTEN_STYLES
from data_pipelines.sources.gtzan import GENRES
from mufun_jax.errors import UserError, nearest

Example = dict[str, Any]  # as tensorflow_datasets' as_numpy gives it

_FAMILIES = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal")
_SOURCES = ("acoustic", "electronic", "synthetic")
_TYPES = ("beat", "fill")
_INFO_COLUMNS = (
    "drummer",
    "session",
    "id",
    "style",
    "bpm",
    "beat_type",
    "time_signature",
    "midi_filename",
    "audio_filename",
    "duration",
    "split",
)
_LARGEST = 2**15 - 1  # of a 16-bit sample


@dataclass(frozen=True)
class Exported:
    """What one example becomes: its files, below the folder, and its row of metadata (None: the names say it all)."""

    files: dict[str, bytes]
    key: str
    row: dict[str, Any] | None


@dataclass(frozen=True)
class _Export:
    """How a data set is called in TensorFlow Datasets, its splits there, and how its examples are turned."""

    builder: str
    splits: tuple[str, ...]
    convert: Callable[[Example, str], Exported]
    finish: Callable[[Path, str, dict[str, dict[str, Any]]], None]


def export_tfds(name: str, splits: Sequence[str], folder: Path, data_dir: Path | None = None) -> int:
    """Writes the splits (all of them, if none is named) of a data set below `folder`; returns how many examples.

    `data_dir` is where tensorflow_datasets keeps what it prepared; None is its own choice. What is not prepared there
    it fetches.

    Raises:
        UserError: an unknown data set or split, an example with another content than the data set has, or TensorFlow
            or tensorflow_datasets is not installed.
    """
    if name not in _EXPORTS:
        raise UserError(f"no export of {name!r}{nearest(name, list(_EXPORTS))}; there are {', '.join(_EXPORTS)}")
    export = _EXPORTS[name]
    for split in splits:
        if split not in export.splits:
            hint = nearest(split, list(export.splits))
            raise UserError(f"{name} has no split {split!r} there{hint}; it has {', '.join(export.splits)}")
    datasets = _tensorflow_datasets()
    count = 0
    for split in splits or export.splits:
        loaded = datasets.load(export.builder, split=split, data_dir=None if data_dir is None else str(data_dir))
        count += write_examples(name, split, datasets.as_numpy(loaded), folder)
    return count


def write_examples(name: str, split: str, examples: Iterable[Example], folder: Path) -> int:
    """Writes one split's examples; returns how many. Metadata is written last, when all of its files are there."""
    export, rows, count = _EXPORTS[name], {}, 0
    for example in examples:
        exported = export.convert(example, split)
        for path, content in exported.files.items():
            _write(folder / path, content)
        if exported.row is not None:
            rows[exported.key] = exported.row
        count += 1
    export.finish(folder, split, rows)
    return count


def gtzan_files(example: Example, _split: str) -> Exported:
    """A GTZAN example: int64 samples of a 16-bit file at 22,050 Hz, which may be named blues.00000.wav."""
    genre, name = _class(example["label"], GENRES), _text(example["audio/filename"])
    if not re.fullmatch(rf"{genre}\.\d{{5}}\.wav", name):
        raise UserError(f"a GTZAN example of the genre {genre} is named {name!r}, not like {genre}.00000.wav")
    samples = np.clip(np.asarray(example["audio"]), -_LARGEST - 1, _LARGEST).astype("<i2")
    return Exported({f"genres/{genre}/{name}": wav_bytes(samples, 22_050)}, name, None)


def nsynth_files(example: Example, split: str) -> Exported:
    """An NSynth example: 64,000 float32 samples in [-1, 1] at 16 kHz, pitch, velocity, family, source and qualities."""
    name = _text(example["id"])
    if not re.fullmatch(r"[a-z0-9_]+(-\d+)+", name):
        raise UserError(f"an NSynth example is named {name!r}, not like bass_synthetic_033-022-050")
    instrument, qualities = example["instrument"], example["qualities"]
    row = {
        "note_str": name,
        "pitch": int(example["pitch"]),
        "velocity": int(example["velocity"]),
        "sample_rate": 16_000,
        "instrument_str": name.partition("-")[0],
        "instrument_family_str": _class(instrument["family"], _FAMILIES),
        "instrument_source_str": _class(instrument["source"], _SOURCES),
        "qualities_str": sorted(quality for quality, has in qualities.items() if bool(has)),
    }
    samples = _to_16_bits(example["audio"], 2**15)
    return Exported({f"nsynth-{split}/audio/{name}.wav": wav_bytes(samples, 16_000)}, name, row)


def groove_files(example: Example, split: str) -> Exported:
    """A Groove example of the config full-16000hz: float32 samples at 16 kHz, and the bytes of a MIDI file.

    TensorFlow Datasets divides 16-bit samples by 2^16, so they lie in [-0.5, 0.5]; they are multiplied by it again.
    """
    name = _text(example["id"])
    session, _, number = name.rpartition("/")
    if not re.fullmatch(r"drummer\d+/(eval_)?session\d*/\d+", name):
        raise UserError(f"a Groove example is named {name!r}, not like drummer1/session1/1")
    primary, secondary = _class(example["style"]["primary"], WRITTEN_STYLES), _text(example["style"]["secondary"])
    if not re.fullmatch(r"[A-Za-z0-9_-]*", secondary):
        raise UserError(f"the Groove example {name} has the style {secondary!r}")
    style = f"{primary}/{secondary}" if secondary else primary
    kind, meter, bpm = (
        _class(example["type"], _TYPES),
        _class(example["time_signature"], WRITTEN_METERS),
        int(example["bpm"]),
    )
    path = f"{session}/{number}_{style.replace('/', '-')}_{bpm}_{kind}_{meter}"
    samples = _to_16_bits(example["audio"], 2**16)
    row = {
        "drummer": f"drummer{int(example['drummer']) + 1}",
        "session": session,
        "id": name,
        "style": style,
        "bpm": bpm,
        "beat_type": kind,
        "time_signature": meter,
        "midi_filename": f"{path}.mid",
        "audio_filename": f"{path}.wav",
        "duration": round(len(samples) / 16_000, 3),
        "split": split,
    }
    files = {f"groove/{path}.wav": wav_bytes(samples, 16_000), f"groove/{path}.mid": bytes(example["midi"])}
    return Exported(files, name, row)


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """A WAV file of one channel of 16-bit samples."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def _to_16_bits(samples: Any, scale: int) -> np.ndarray:
    floats = np.asarray(samples, np.float64)
    if floats.ndim != 1 or not np.isfinite(floats).all():
        raise UserError("an example's samples are not one row of finite numbers; prepare the data set again")
    return np.clip(np.rint(floats * scale), -_LARGEST - 1, _LARGEST).astype("<i2")


def _class(label: Any, names: Sequence[str]) -> str:
    if not 0 <= int(label) < len(names):
        raise UserError(f"an example has the label {int(label)}, but there are only {len(names)}: {', '.join(names)}")
    return names[int(label)]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _write(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it; one that has the right size stays."""
    if path.is_file() and path.stat().st_size == len(content):
        return
    _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.part")
    aside.write_bytes(content)
    aside.replace(path)


def _no_metadata(_folder: Path, _split: str, _rows: dict[str, dict[str, Any]]) -> None:
    pass


def _write_examples_json(folder: Path, split: str, rows: dict[str, dict[str, Any]]) -> None:
    content = json.dumps({name: rows[name] for name in sorted(rows)}, indent=1)
    _replace(folder / f"nsynth-{split}/examples.json", content.encode())


def _write_info_csv(folder: Path, split: str, rows: dict[str, dict[str, Any]]) -> None:
    """The rows of this split, beside those of other splits that are in the table already."""
    path = folder / "groove/info.csv"
    kept = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            kept = [row for row in csv.DictReader(file) if row.get("split") != split]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_INFO_COLUMNS)
    for row in sorted([*kept, *rows.values()], key=lambda row: row["id"]):
        writer.writerow([row[column] for column in _INFO_COLUMNS])
    _replace(path, buffer.getvalue().encode())


def _tensorflow_datasets() -> Any:
    """The package. It imports TensorFlow only when it first reads; so TensorFlow is looked for here."""
    for package, extra in (("tensorflow_datasets", "mufun_jax[datasets]"), ("tensorflow", "tensorflow-cpu")):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"the export needs {package} ({error}); install it: pip install '{extra}'") from None
    return importlib.import_module("tensorflow_datasets")


_EXPORTS = {
    "gtzan": _Export("gtzan", ("train",), gtzan_files, _no_metadata),
    "nsynth": _Export("nsynth/full", ("train", "valid", "test"), nsynth_files, _write_examples_json),
    "groove": _Export("groove/full-16000hz", ("train", "validation", "test"), groove_files, _write_info_csv),
}

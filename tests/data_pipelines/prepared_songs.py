"""Songs for the tests of preparation: tones in four formats, and a manifest of them."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_pipelines.prepare import PrepareOptions

ONE = PrepareOptions(workers=1)


def tone(path: Path, pitch: float, seconds: float = 0.5, rate: int = 22_050) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.4 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.stack([samples, samples], axis=1), rate)


def entry(name: str, audio: Any, answer: str = "blues", **more) -> dict:
    question = {"from": "human", "value": "<audio>\nWhat genre is this?"}
    return {"id": name, "audio": audio, "conversations": [question, {"from": "gpt", "value": answer}]} | more


def write_songs(folder: Path, count: int = 12, name: str = "songs.jsonl") -> Path:
    """A manifest of tones: WAV, FLAC, OGG and MP3 by turns."""
    lines = []
    for number in range(count):
        audio = f"audio/{number}.{('wav', 'flac', 'ogg', 'mp3')[number % 4]}"
        tone(folder / audio, 200 + 40 * number)
        lines.append(json.dumps(entry(f"song{number}", audio, task="genre")))
    manifest = folder / name
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def small_shards(**changes) -> PrepareOptions:
    return PrepareOptions(**{"workers": 1, "shard_bytes": 60_000, **changes})


def shards_of(out: Path) -> dict[str, str]:
    """Hashes of everything that training reads."""
    files = [*out.glob("*/1.0.0/*.array_record-*"), *out.glob("*/1.0.0/*.index-*"), *out.glob("*/1.0.0/*_info.json")]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def with_lines(songs: Path, tmp_path: Path, *lines: str) -> Path:
    """A copy of the songs with more lines in the manifest."""
    shutil.copytree(songs.parent, tmp_path / "copy")
    manifest = tmp_path / "copy" / songs.name
    manifest.write_text(songs.read_text() + "".join(f"{line}\n" for line in lines))
    return manifest


BAD = {
    "not JSON": '{"id": "x", ',
    "unknown field 'audoi' (did you mean 'audio'?)": json.dumps(entry("x", "audio/0.wav") | {"audoi": 1}),
    "lies outside": json.dumps(entry("x", "../secret.wav")),
    "lies outside the manifest's folder": json.dumps(entry("x", "/etc/passwd")),
    "is a URL": json.dumps(entry("x", "https://example.org/a.wav")),
    "no such file": json.dumps(entry("x", "audio/absent.wav")),
    "empty audio file": json.dumps(entry("x", "audio/empty.wav")),
    "must be a file name": json.dumps(entry("x", 7)),
    "0 <= start < end": json.dumps(entry("x", "audio/0.wav", time=[3, 1])),
    "begins where the audio ends, at 0.500 s": json.dumps(entry("x", "audio/0.wav", time=[0.45, 1])),
    "is shorter than 0.1 s": json.dumps(entry("x", "audio/0.wav", time=[0.1, 0.15])),
}

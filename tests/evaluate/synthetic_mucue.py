"""A small MuCUE with planted answers, in both of its layouts."""

import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile

from mufun_jax.evaluate.benchmark_question import LETTERS

# Two sets of a group, one of another, one with a hyphen in its published name: {set: questions}.
SETS: Mapping[str, int] = {"gs_key_30s": 12, "gtzan_key": 7, "nsyn_pitch": 9, "mmau_music": 8}
_RATE = 8000  # Hz
_SECONDS = 0.5
_WORDS = ("red", "green", "blue", "white", "black", "brown", "grey", "pink", "gold", "teal")
_SHARDS = 2  # of the first set, in Parquet


def tone(number: int) -> bytes:
    """A WAV file of half a second, another for each number."""
    t = np.arange(int(_RATE * _SECONDS)) / _RATE
    written = io.BytesIO()
    soundfile.write(written, 0.3 * np.sin(2 * np.pi * (200 + 7 * number) * t), _RATE, format="WAV", subtype="PCM_16")
    return written.getvalue()


def write_mucue(
    folder: Path,
    *,
    layout: Literal["parquet", "folder"],
    sets: Mapping[str, int] = SETS,
    questions_a_song: int = 6,
    seed: int = 0,
) -> None:
    """Writes `sets[name]` questions of each set, the same in both layouts for the same `seed`.

    A question is `What is planted in song 3 of gtzan_key, question 2?`, its options are four different words, and the
    right one is drawn evenly among the letters. Songs are tones of half a second at 8 kHz, another for each song; every
    third question asks about its second tenth, [0.1, 0.2], the others about all of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first_song = 0
    for name, count in sets.items():
        rows = _rows(name, count, questions_a_song, first_song, random.Random(f"{seed} {name}"))
        first_song += -(-count // questions_a_song)
        if layout == "parquet":
            _write_parquet(folder / "data", name, rows, _SHARDS if name == next(iter(sets)) else 1)
        else:
            _write_folder(folder, name, rows)


def _rows(name: str, count: int, questions_a_song: int, first_song: int, draw: random.Random) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        song = number // questions_a_song
        options = draw.sample(_WORDS, 4)
        rows.append(
            {
                "audio": {"bytes": tone(first_song + song), "path": f"{name}_{song}.wav"},
                "question": f"What is planted in song {song} of {name}, question {number}?",
                "choices_text": " \n".join(f"{letter}. {word}" for letter, word in zip(LETTERS, options, strict=False)),
                "correct_choice": draw.choice(LETTERS[:4]),
                "time_seg": [0.1, 0.2] if number % 3 == 2 else [],
            }
        )
    return rows


def write_parquet_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """A file of rows as above, in row groups of three."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        {
            "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "question": pa.string(),
            "choices_text": pa.string(),
            "correct_choice": pa.string(),
            "time_seg": pa.list_(pa.float64()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=3)


def _write_parquet(folder: Path, name: str, rows: list[dict[str, Any]], shards: int) -> None:
    size = -(-len(rows) // shards)
    for shard in range(shards):
        path = folder / f"{name}-{shard:05d}-of-{shards:05d}.parquet"
        write_parquet_rows(path, rows[shard * size : (shard + 1) * size])


def _write_folder(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / "audio").mkdir(exist_ok=True)
    with (folder / f"{name}.jsonl").open("w") as lines:
        for row in rows:
            audio = f"audio/{row['audio']['path']}"
            (folder / audio).write_bytes(row["audio"]["bytes"])
            lines.write(json.dumps({**row, "audio": audio}) + "\n")

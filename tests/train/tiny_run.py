"""A curriculum of three short stages on a corpus of tones, for tests: a second or two a stage."""

import json
from pathlib import Path

import numpy as np
import soundfile

from data_pipelines.prepare import PrepareOptions, prepare
from data_pipelines.source import manifest_source
from mufun_jax.config import SAMPLE_RATE, RunConfig
from mufun_jax.config_file import load_run_config

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    short = dict(rows=2, positions=192, windows=4, targets=32, longest_audio=2.0, remat="none")
    return ConfigDict(dict(
        model=dict(
            encoder=dict(mel_bins=80, width=16, layers=2, heads=2, mlp_width=16, taps=(0, 2), window_samples=16000),
            connector_width=16,
            decoder=dict(vocab_size=512, width=16, layers=2, heads=2, kv_heads=1, head_size=8, mlp_width=16,
                         tied_embeddings=True),
            max_windows=5,
        ),
        tokenizer="nano",
        data="",
        compute_dtype="float32",

        mesh=dict(data=2, simulated_devices=2),
        checkpoint=dict(every_steps=4, keep=2),
        curriculum=("warmup", "align", "long"),
        stages=dict(
            warmup=dict(**short, mixture=dict(notes=1.0), template="warmup", encoder="frozen", decoder="frozen",
                        steps=3, learning_rate=0.01),
            align=dict(**short, mixture=dict(notes=3.0, songs=1.0), steps=6, learning_rate=0.01),
            long=dict(rows=2, positions=128, windows=4, targets=32, longest_audio=5.0, remat="none",
                      mixture=dict(songs=1.0), steps=3, learning_rate=0.01),
        ),
    ))
"""


class KilledError(Exception):
    """Raised in a callback, stands for the end of the process."""


def tiny_run(corpus: Path, *settings: str) -> RunConfig:
    """The run, with `--set` settings, on a corpus of `write_tiny_corpus`, of which it is `tiny.py`."""
    config = corpus / "tiny.py"
    config.write_text(CONFIG)
    return load_run_config(config, [f"data={corpus}", *settings])


def write_tiny_corpus(folder: Path) -> Path:
    """Tones of one second (`notes`) and of five (`songs`), with a question each: as manifests, and prepared."""
    for name, count, seconds in (("notes", 12, 1.0), ("songs", 4, 5.0)):
        entries = []
        for number in range(count):
            pitch = 220 * 2 ** (number * 12 / count / 12)  # no two alike
            time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
            file = f"{name}{number}.wav"
            soundfile.write(folder / file, 0.5 * np.sin(2 * np.pi * pitch * time), SAMPLE_RATE)
            answer = "high" if pitch > 311 else "low"
            conversations = [{"from": "human", "value": "<audio>\nHigh?"}, {"from": "gpt", "value": answer}]
            entries.append({"id": f"{name}{number}", "audio": file, "conversations": conversations})
        (folder / f"{name}.json").write_text(json.dumps(entries))
    sources = [manifest_source(folder / f"{name}.json") for name in ("notes", "songs")]
    prepare(sources, folder, PrepareOptions(workers=1))
    tiny_run(folder)
    return folder

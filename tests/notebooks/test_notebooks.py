"""The notebooks run top to bottom on a nano model, and give what they promise. Outputs are not committed."""

import base64
import json
import os
import re
import struct
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import soundfile
from nbclient import NotebookClient

from mufun_jax.config import SAMPLE_RATE
from mufun_jax.model.presets import preset
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.weights.model_folder import save_model
from tests.tiny import random_params

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NANO = replace(preset("nano"), max_windows=3)  # hears 9 s
SECONDS = 10.0
STEPS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "nano"
    save_model(folder, NANO, random_params(NANO), load_tokenizer("nano"))
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """What one notebook compiled the next need not."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    """Eight tones, four low and four high, and a table that says so."""
    folder = tmp_path_factory.mktemp("music") / "songs"
    folder.mkdir()
    time = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    rows = []
    for number in range(8):
        high = number in (1, 2, 4, 7)
        samples = 0.4 * np.sin(2 * np.pi * (1000 if high else 200) * (1 + number / 50) * time)
        soundfile.write(folder / f"song{number}.wav", samples, SAMPLE_RATE)
        rows.append(f"song{number}.wav,{'high' if high else 'low'}\n")
    (folder / "labels.csv").write_text("file,genre\n" + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def environment(model, songs, programs) -> dict[str, str]:
    return {
        "MUFUN_MODEL": str(model),
        "MUFUN_SONGS": str(songs),
        "MUFUN_STEPS": str(STEPS),
        "MUFUN_LEARNING_RATE": "0.01",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # most of the time is compiling
        "JAX_COMPILATION_CACHE_DIR": str(programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


class Executed:
    """A notebook after all its cells have run, in a kernel of its own, and what its variables hold."""

    def __init__(self, number: int, folder: Path, environment: dict[str, str], values: str):
        """`values`: an expression of the notebook's variables, whose value is JSON."""
        self.book = nbformat.read(NOTEBOOKS[number - 1], as_version=4)
        self.book.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({values}))"))
        client = NotebookClient(self.book, timeout=300, resources={"metadata": {"path": str(folder)}})
        client.execute(env=os.environ | environment)
        self.values: dict[str, Any] = json.loads(self.text_of(self.book.cells.pop()))

    def text_of(self, cell: Any) -> str:
        """What a cell printed."""
        return "".join(output.text for output in cell.outputs if output.output_type == "stream")

    def printed(self) -> str:
        return "\n".join(self.text_of(cell) for cell in self.book.cells if cell.cell_type == "code")

    def data(self, kind: str) -> list[Any]:
        """All outputs of a kind, such as image/png."""
        outputs = [output for cell in self.book.cells for output in cell.get("outputs", ())]
        return [output.data[kind] for output in outputs if kind in output.get("data", {})]

    def pictures(self) -> list[tuple[int, int]]:
        """Width and height of all pictures."""
        return [struct.unpack(">II", base64.b64decode(png)[16:24]) for png in self.data("image/png")]


def test_ask_a_song(tmp_path, environment):
    done = Executed(
        1, tmp_path, environment, "dict(described=described, rows=rows, history=history, shares=shares.tolist())"
    )
    said = done.printed()
    assert "This runtime has no TPU." in said
    assert "Going on with a small model instead: /" in said
    assert "8 songs, the first is song0.wav" in said
    assert "It hears 9 s of a song" in said
    (player,) = [html for html in done.data("text/html") if "<audio" in html]
    (encoded,) = re.findall(r"data:audio/wav;base64,([\w+/=]+)", player)
    wav = tmp_path / "heard.wav"
    wav.write_bytes(base64.b64decode(encoded))
    assert soundfile.info(wav).duration == 9.0, "what is played is what is heard"
    assert done.values["described"].keys() == {"tempo", "vocals", "beats_per_minute"}
    assert 40 <= done.values["described"]["beats_per_minute"] <= 220
    assert [Path(row["file"]).name for row in done.values["rows"]] == ["song0.wav", "song1.wav", "song2.wav"]
    assert [question for question, _ in done.values["history"]][1:] == ["What makes you think so?"]
    assert sum(done.values["shares"]) == pytest.approx(1)
    assert said.count("     10.0      9.0      1.0        3  ") == 3, "what was heard of three songs, and left out"
    assert "| song1.wav |" in done.data("text/markdown")[0]
    assert len(done.pictures()) == 1


@pytest.mark.slow  # a minute; what it calls is tested elsewhere, too
def test_fine_tune_with_lora(tmp_path, environment):
    done = Executed(2, tmp_path, environment, "dict(before=before, after=after, losses=[s['loss'] for s in steps])")
    said = done.printed()
    assert "This runtime has no TPU." in said
    assert "8 songs; the first: {'file': 'song0.wav', 'genre': 'low'}" in said
    assert re.search(r"taught +train +1 +6 ", said), "six of eight songs are taught"
    trained = 3 * 16 * (128 + 128 + 2 * (128 + 64) + 128 + 128 + 3 * (128 + 256))
    assert f"{trained:,} numbers were trained" in said
    losses = done.values["losses"]
    assert len(losses) == STEPS
    assert losses[0] > 4 and np.mean(losses[-3:]) < 0.5 * losses[0]
    assert done.values["before"] != done.values["after"]
    assert set(done.values["after"]) <= {"low", "high"}
    assert "| song4.wav | high |" in done.data("text/markdown")[0]
    assert (tmp_path / "runs/lora/checkpoint/config.json").is_file()
    assert len(done.pictures()) == 1


def test_from_and_to_pytorch(tmp_path, environment):
    done = Executed(3, tmp_path, environment, "dict(said=list(said.values()), worst=float(differences.max()))")
    said = done.printed()
    tensors = re.findall(r"(\d+) tensors, the same", said)
    assert len(tensors) == 2 and tensors[0] == tensors[1]
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"ours", "back", "parts", "joined"}
    assert done.values["said"][0] == done.values["said"][1]
    assert done.values["worst"] < 1e-3


def test_look_inside(tmp_path, environment):
    done = Executed(
        4,
        tmp_path,
        environment,
        "dict(mel=float(np.abs(ours - theirs).max()), accuracy=accuracy.tolist(), weights=list(weights.shape),"
        " share=share.tolist())",
    )
    assert done.values["mel"] < 1e-4, "our log-mel is librosa's"
    assert len(done.values["accuracy"]) == NANO.encoder.layers + 1
    assert max(done.values["accuracy"]) > 0.5, "a quarter is guessing"
    assert done.values["weights"] == [NANO.decoder.layers, NANO.decoder.heads, 3 * NANO.encoder.tokens_per_window]
    assert all(0 < share < 1 for share in np.ravel(done.values["share"]))
    assert len(done.pictures()) == 5
    assert all(width <= 700 and height <= 400 for width, height in done.pictures())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs_and_installs_pinned_versions(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    pins["mufun_jax"] = version
    installed = re.findall(r"%pip install (.*)", "\n".join(cell.source for cell in code))
    words = [word.strip('"') for line in installed for word in line.split() if not word.startswith("-")]
    assert len(words) >= 4
    for word in words:
        name, _, pin = word.partition("==")
        assert pin == pins[name.partition("[")[0]], word
    assert "%pip install" in code[0].source and "This runtime" in code[0].source, "the first cell says what is missing"

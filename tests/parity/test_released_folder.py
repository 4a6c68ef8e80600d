"""A released folder, loaded as users load it, against the same computation in PyTorch: logits, answers, scores.

PyTorch's side shares nothing with ours but the files: transformers' Whisper encoder, Qwen3 and tokenizer, the
original's splice and window rule, written out here.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import soundfile
import torch
from transformers import Qwen2Tokenizer

from mufun_jax import MuFun
from mufun_jax.config import SAMPLE_RATE
from tests.parity.reference_model import ReferenceModel
from tests.released_folder import small_model, write_released
from tests.tiny import relative_error

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
END_OF_TURN = 511
NEW_TOKENS = 5
OPTIONS = ["major", "minor", "C# minor, with a modulation", " 2 ", ""]


class PyTorchMuFun:
    """The reference's `chat`, and the log-probability of an answer, from waveforms."""

    def __init__(self, reference: ReferenceModel, folder):
        self.reference = reference
        self.tokenizer = Qwen2Tokenizer.from_pretrained(folder)

    def windows(self, samples: np.ndarray) -> np.ndarray:
        """Windows one after the other; a tail of 8,000 samples or fewer is dropped, a longer one padded."""
        size = self.reference.config.encoder.window_samples
        cut = [samples[start : start + size] for start in range(0, len(samples), size)]
        if len(cut) > 1 and len(cut[-1]) <= 8000:
            cut.pop()
        return np.stack([np.pad(one, (0, size - len(one))) for one in cut])

    def embeddings(self, text: str, songs: Sequence[np.ndarray]) -> torch.Tensor:
        pieces = [self.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in text.split("<audio>")]
        return self.reference.embeddings(pieces, [self.windows(song) for song in songs])

    def logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.reference.decoder(inputs_embeds=embeddings[None]).logits[0]

    def prompt(self, question: str, songs: Sequence[np.ndarray]) -> torch.Tensor:
        with torch.no_grad():
            return self.embeddings(f"{SYSTEM} USER: {question} ASSISTANT:", songs)

    def chat(self, embeddings: torch.Tensor) -> str:
        table = self.reference.decoder.get_input_embeddings()
        tokens = []
        for _ in range(NEW_TOKENS):
            token = int(self.logits(embeddings)[-1].argmax())
            if token == END_OF_TURN:
                break
            tokens.append(token)
            with torch.no_grad():
                embeddings = torch.cat([embeddings, table(torch.tensor([token]))])
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def score(self, embeddings: torch.Tensor, option: str) -> tuple[float, int]:
        tokens = self.tokenizer(f" {option}<|im_end|>", add_special_tokens=False)["input_ids"]
        assert tokens[-1] == END_OF_TURN
        with torch.no_grad():
            whole = torch.cat([embeddings, self.reference.decoder.get_input_embeddings()(torch.tensor(tokens))])
        log_probabilities = self.logits(whole)[len(embeddings) - 1 : -1].double().log_softmax(-1)
        return float(log_probabilities[range(len(tokens)), tokens].sum()), len(tokens)


def music(seconds: float, seed: int) -> np.ndarray:
    """int16 at 16 kHz: a melody of tones with some noise."""
    rng = np.random.default_rng(seed)
    notes = 220 * 2 ** (rng.integers(0, 24, int(seconds * 4) + 1) / 12)
    pitch = np.repeat(notes, SAMPLE_RATE // 4)[: round(seconds * SAMPLE_RATE)]
    sound = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE) + 0.02 * rng.standard_normal(len(pitch))
    return np.rint(sound * 32767).astype(np.int16)


class Pair:
    """One model twice: ours, loaded from a released folder, and PyTorch's."""

    def __init__(self, folder, config, dtype=torch.float32):
        reference = ReferenceModel(config, seed=3)
        write_released(folder, reference, dtype)
        self.folder = folder
        self.theirs = PyTorchMuFun(reference, folder)
        self.ours = MuFun.from_pretrained(folder, dtype="float32")

    def songs(self, *samples: np.ndarray) -> list[str]:
        paths = []
        for number, sound in enumerate(samples):
            paths.append(str(self.folder / f"song{number}.wav"))
            soundfile.write(paths[-1], sound, SAMPLE_RATE)
        return paths

    def agree(self, prompt: str, files, heard: Sequence[np.ndarray], segs=None, options=OPTIONS) -> None:
        """`heard` is what of the files the model is meant to hear."""
        asked = prompt if "<audio>" in prompt or not files else f"<audio>\n{prompt}"
        embeddings = self.theirs.prompt(asked, heard)
        expected = self.theirs.logits(embeddings)[-1]
        assert relative_error(self.ours.logits(prompt, files, segs), expected) < 1e-4
        assert self.ours.chat(prompt, files, segs, max_new_tokens=NEW_TOKENS) == self.theirs.chat(embeddings)
        scores = self.ours.score(prompt, files, options, segs)
        assert [score.option for score in scores] == options
        for score in scores:
            log_probability, tokens = self.theirs.score(embeddings, score.option)
            assert score.tokens == tokens, score
            assert abs(score.log_probability - log_probability) < 1e-3, (score, log_probability)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    return Pair(tmp_path_factory.mktemp("model"), small_model())


@pytest.fixture(scope="module")
def full_windows(tmp_path_factory) -> Pair:
    """Windows of 30 s, as many as the released models hear."""
    return Pair(tmp_path_factory.mktemp("model"), small_model(window_seconds=30))


def test_text_alone(pair):
    pair.agree("What is a fugue?", [], [])


def test_one_song(pair):
    song = music(2.8, 0)
    pair.agree("Which key is this in?", pair.songs(song)[0], [song])


def test_a_tied_head(tmp_path):
    tied = Pair(tmp_path, small_model(tied=True))
    song = music(1.2, 8)
    tied.agree("Which key is this in?", tied.songs(song)[0], [song])


def test_two_songs(pair):
    songs = [music(2.6, 1), music(0.7, 2)]
    pair.agree("Which is faster, <audio> or <audio>?", pair.songs(*songs), songs)


def test_a_dropped_tail(pair):
    """8,000 samples beyond a window are dropped, one more is heard: here and there alike."""
    for tail, windows in ((8000, 2), (8001, 3)):
        song = music(2 + tail / SAMPLE_RATE, 3)
        assert len(pair.theirs.windows(song)) == windows
        pair.agree("<audio>\nMajor or minor?", pair.songs(song), [song])


def test_a_segment(pair):
    song = music(5.0, 4)
    part = song[round(1.25 * SAMPLE_RATE) : round(3.5 * SAMPLE_RATE)]
    pair.agree("Major or minor?", pair.songs(song), [part], segs=[1.25, 3.5])


def test_400_seconds(full_windows):
    """13 windows of 30 s are heard, 390 s: what comes after does not reach the model."""
    song = music(400.0, 5)
    path = full_windows.songs(song)[0]
    full_windows.agree("What form has it?", path, [song[: 390 * SAMPLE_RATE]], options=OPTIONS[:2])


@pytest.mark.slow
def test_400_seconds_of_14_windows(tmp_path):
    """A model that is said to hear 14 windows hears all of it, as the original, which has no limit, would."""
    pair = Pair(tmp_path, small_model(window_seconds=30))
    object.__setattr__(pair.ours.config, "max_windows", 14)
    song = music(400.0, 6)
    pair.agree("What form has it?", pair.songs(song), [song], options=OPTIONS[:1])


def test_bfloat16_weights_are_those_of_the_files(tmp_path):
    """From bfloat16 files in float32: the weights are rounded, the arithmetic is not."""
    config = small_model()
    pair = Pair(tmp_path, config, torch.bfloat16)
    rounded = ReferenceModel(config, seed=3)
    with torch.no_grad():
        for parameter in rounded.parameters():  # not .to(bfloat16), which rounds rotary frequencies too
            parameter.copy_(parameter.bfloat16())
    pair.theirs = PyTorchMuFun(rounded, tmp_path)
    song = music(1.5, 7)
    pair.agree("Which key is this in?", pair.songs(song), [song])

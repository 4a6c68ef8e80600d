"""`MuFun`: load a model, ask it about songs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mufun_jax.audio.waveform import load_waveform
from mufun_jax.audio.windows import seconds_heard, split_windows
from mufun_jax.errors import AudioError, UserError
from mufun_jax.generate.decode import (
    Prompts,
    continuation_log_probability,
    generate,
    next_token_logits,
    prefill_prompts,
)
from mufun_jax.generate.sample import Sampling
from mufun_jax.model.compute import Compute
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn, render
from mufun_jax.text.splice import Spliced, splice
from mufun_jax.text.tokenizer import Tokenizer
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.model_folder import Quantize, load_model
from mufun_jax.weights.params import Params
from mufun_jax.weights.safetensors_file import Advance

Segment = Sequence[int | float] | None  # start and end in seconds; None is the whole file
MAX_SECONDS = 3600.0  # of one file or segment; longer ones are refused rather than heard in small part
_OPTION_BUCKET = 16  # options are padded to a multiple of this
_LENGTH_BUCKET = 64  # prompts are padded to a multiple of this, so that few lengths are compiled


@dataclass(frozen=True)
class Heard:
    """What the model heard of one file, in seconds of that file."""

    file: str
    file_seconds: float
    start: float
    seconds_used: float
    seconds_dropped: float  # of what was asked for: beyond the model's context, or a tail of half a second or less
    windows: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """One prompt, the user's turn, with a file for each `<audio>` in it."""

    prompt: str
    audio_files: tuple[Path, ...] = ()
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Text, whether the model ended it by itself (or the token limit did), and what was heard."""

    text: str
    finished: bool
    heard: tuple[Heard, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class OptionScore:
    """An answer's summed log-probability in nats, `<|im_end|>` included, and the number of tokens that it sums."""

    option: str
    log_probability: float
    tokens: int


@dataclass(frozen=True)
class PreparedQuestion:
    """A question as arrays."""

    spliced: Spliced
    windows: Float[np.ndarray, "W S"]
    heard: tuple[Heard, ...]


class MuFun:
    """A model that listens to songs and answers in text.

    >>> model = MuFun.from_pretrained("runs/demo/checkpoint")
    >>> model.chat("<audio>\\nWhat is the key?", "song.mp3")
    """

    def __init__(self, model: MuFunModel, params: Params, tokenizer: Tokenizer, mesh: Mesh):
        self.model = model
        self.params = params
        self.tokenizer = tokenizer
        self.mesh = mesh
        self.config = model.config

    @staticmethod
    def from_pretrained(
        path: str | Path,
        dtype: Literal["float32", "bfloat16"] = "bfloat16",
        mesh: Mesh | None = None,
        quantize: Quantize = None,
        *,
        advance: Advance = lambda *_: None,
    ) -> "MuFun":
        """Loads a released folder, one of ours, or a model of the Hugging Face hub by its `owner/name`.

        Each device of `mesh` (by default all accelerators, split by fsdp) gets its part straight from the files.
        With quantize="int8" the decoder's matrices are int8 with a scale an output channel. `advance` is called with
        the bytes loaded, the bytes in all, and the name of a parameter.

        Raises:
            CheckpointError, ConfigError: there is no model, or one that is damaged or of another kind.
        """
        mesh = mesh if mesh is not None else inference_mesh()
        loaded = load_model(local_folder(path), mesh, dtype, quantize, advance)
        return MuFun(
            MuFunModel(loaded.config.model, Compute(jnp.dtype(dtype).type)), loaded.params, loaded.tokenizer, mesh
        )

    def chat(
        self,
        prompt: str,
        audio_files: str | Path | Sequence[str | Path] | None = None,
        segs: Segment | Sequence[Segment] = None,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
    ) -> str:
        """The answer to a prompt about audio files, one for each `<audio>` in it, in order.

        A prompt without `<audio>` and with one file gets `<audio>\\n` in front. `segs` is the part of the file in
        seconds, [start, end], or a list with one entry (or None) a file.
        """
        question = make_question(prompt, audio_files, segs)
        sampling = Sampling(temperature, top_p, top_k)
        return self.answer([question], max_new_tokens=max_new_tokens, sampling=sampling, seed=seed)[0].text

    def answer(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int = 64,
        sampling: Sampling = Sampling(),  # noqa: B008  immutable
        seed: int = 0,
    ) -> list[Answer]:
        """Answers a batch of questions, of different lengths; each gets what it would get alone."""
        prepared = [self.prepare(question) for question in questions]
        prompts = self._batch(prepared)
        with jax.set_mesh(self.mesh):
            tokens, lengths = generate(
                self.model,
                self.params,
                prompts,
                jnp.int32(self.tokenizer.end_of_turn),
                jax.random.key(seed),
                max_new_tokens=max_new_tokens,
                sampling=sampling,
            )
        tokens, lengths = np.asarray(tokens), np.asarray(lengths)
        return [
            Answer(self.tokenizer.decode(row[:length].tolist()).strip(), bool(length < max_new_tokens), one.heard)
            for row, length, one in zip(tokens, lengths, prepared, strict=True)
        ]

    def logits(
        self,
        prompt: str,
        audio_files: str | Path | Sequence[str | Path] | None = None,
        segs: Segment | Sequence[Segment] = None,
    ) -> Float[np.ndarray, " V"]:
        """Next-token logits after the prompt, float32 [vocabulary]."""
        prompts = self._batch([self.prepare(make_question(prompt, audio_files, segs))])
        with jax.set_mesh(self.mesh):
            return np.asarray(next_token_logits(self.model, self.params, prompts))[0]

    def score(
        self,
        prompt: str,
        audio_files: str | Path | Sequence[str | Path] | None = None,
        options: Sequence[str] = (),
        segs: Segment | Sequence[Segment] = None,
    ) -> list[OptionScore]:
        """How likely the model finds each option as its whole answer, the end of its turn included.

        The songs and the prompt are run once; each option continues from there.
        """
        if isinstance(options, str) or not options or not all(isinstance(option, str) for option in options):
            raise UserError(f"options {options!r}: give a list of answers, for instance ['major', 'minor']")
        question = make_question(prompt, audio_files, segs)
        prepared = self.prepare(question)
        answers = [self._answer_tokens(question, option) for option in options]
        longest = -(-max(map(len, answers)) // _OPTION_BUCKET) * _OPTION_BUCKET
        prompts = self._batch([prepared])
        scores = []
        with jax.set_mesh(self.mesh):
            logits, cache = prefill_prompts(self.model, self.params, prompts, prompts.tokens.shape[1] + longest)
            for option, answer in zip(options, answers, strict=True):
                tokens = np.full((1, longest), self.tokenizer.padding, np.int32)
                tokens[0, : len(answer)] = answer
                count = np.array([len(answer)], np.int32)
                total = continuation_log_probability(
                    self.model, self.params, logits, cache, prompts.lengths, tokens, count
                )
                scores.append(OptionScore(option, float(total[0]), len(answer)))
        return scores

    def _answer_tokens(self, question: Question, answer: str) -> tuple[int, ...]:
        """The tokens of an answer as training has them: its text and the end of the turn."""
        if AUDIO_PLACEHOLDER in answer:
            raise UserError(f"the option {answer!r} has {AUDIO_PLACEHOLDER} in it; songs stand in the prompt only")
        last = self.tokenizer.encode_pieces(render([Turn(question.prompt, answer)]))[-1]
        return tuple(token for token, is_target in zip(last.ids, last.is_target, strict=True) if is_target)

    def prepare(self, question: Question) -> PreparedQuestion:
        """Reads the files of a question and splices them into its prompt.

        Raises:
            AudioError: a file cannot be read. UserError: `<audio>` and files differ in number.
        """
        pieces = self.tokenizer.encode_pieces(render([Turn(question.prompt)]))
        if len(pieces) - 1 != len(question.audio_files):
            raise UserError(
                f"the prompt has {len(pieces) - 1} {AUDIO_PLACEHOLDER} but {len(question.audio_files)} audio files "
                f"were given; write {AUDIO_PLACEHOLDER} once for each file"
            )
        if len(question.audio_files) > self.config.max_windows:
            raise UserError(
                f"{len(question.audio_files)} audio files are more than the {self.config.max_windows} windows "
                "that the model hears; each file needs one"
            )
        windows, heard = [], []
        room = self.config.max_windows // max(1, len(question.audio_files))
        for path, segment in zip(question.audio_files, question.segments, strict=True):
            file_windows, file_heard = self._listen(path, segment, room)
            windows.append(file_windows)
            heard.append(file_heard)
        encoder = self.config.encoder
        spliced = splice(pieces, [len(file) for file in windows], encoder.tokens_per_window)
        empty = np.zeros((0, encoder.window_samples), np.float32)
        return PreparedQuestion(spliced, np.concatenate([empty, *windows]), tuple(heard))

    def _listen(self, path: Path, segment: Segment, room: int) -> tuple[Float[np.ndarray, "W S"], Heard]:
        """The first windows of a file (or of its segment), as many as the model has room for."""
        encoder = self.config.encoder
        part = None if segment is None else (float(segment[0]), float(segment[1]))
        waveform = load_waveform(path, segment=part, longest=room * encoder.window_seconds)
        start, end = part if part is not None else (0.0, waveform.file_seconds)
        asked = min(end, waveform.file_seconds) - start
        if asked > MAX_SECONDS:
            raise AudioError(
                f"{path}: too long, {asked:.1f} s where at most {MAX_SECONDS:g} s are taken; choose a part of it "
                f"(on the command line --segment START END)"
            )
        windows = split_windows(waveform.samples, encoder.window_samples)[:room]
        hearing = seconds_heard(asked, encoder.window_samples, room)
        heard = Heard(
            file=str(path),
            file_seconds=round(waveform.file_seconds, 3),
            start=start,
            seconds_used=round(hearing.used_seconds, 3),
            seconds_dropped=round(hearing.dropped_seconds, 3),
            windows=len(windows),
            warnings=waveform.warnings,
        )
        return windows, heard

    def _batch(self, prepared: Sequence[PreparedQuestion]) -> Prompts:
        """Pads questions to one length (in buckets) and one number of windows."""
        rows = len(prepared)
        longest = max(len(one.spliced.tokens) for one in prepared)
        length = -(-longest // _LENGTH_BUCKET) * _LENGTH_BUCKET
        windows = window_bucket(max(len(one.windows) for one in prepared))
        tokens = np.full((rows, length), self.tokenizer.padding, np.int32)
        audio_slot = np.full((rows, length), -1, np.int32)
        samples = np.zeros((rows, windows, self.config.encoder.window_samples), np.float32)
        lengths = np.zeros(rows, np.int32)
        for row, one in enumerate(prepared):
            lengths[row] = len(one.spliced.tokens)
            tokens[row, : lengths[row]] = one.spliced.tokens
            audio_slot[row, : lengths[row]] = one.spliced.audio_slot
            samples[row, : len(one.windows)] = one.windows
        return Prompts(tokens, audio_slot, lengths, samples)


def window_bucket(windows: int) -> int:
    """The power of two (or 0) that a number of windows is padded to, so that few numbers are compiled."""
    return 1 << (windows - 1).bit_length() if windows else 0


def make_question(
    prompt: str,
    audio_files: str | Path | Sequence[str | Path] | None = None,
    segs: Segment | Sequence[Segment] = None,
) -> Question:
    """A question from the forms that `chat` takes. Raises UserError for an empty prompt or an odd segment."""
    if not prompt.strip():
        raise UserError("the question is empty; ask something, for instance 'What key is it in?'")
    if audio_files is None:
        files: tuple[Path, ...] = ()
    elif isinstance(audio_files, str | Path):
        files = (Path(audio_files),)
    else:
        files = tuple(Path(file) for file in audio_files)
    if AUDIO_PLACEHOLDER not in prompt and len(files) == 1:
        prompt = f"{AUDIO_PLACEHOLDER}\n{prompt}"
    return Question(prompt, files, _segments(segs, len(files)))


def _segments(segs: Any, files: int) -> tuple[Segment, ...]:
    """One segment (or None) a file, from [start, end], a list of those, or None."""
    if segs is None:
        return (None,) * files
    values = list(segs)
    if len(values) == 2 and all(isinstance(value, int | float) for value in values):
        values = [values]
    if len(values) != files or not all(value is None or _is_pair(value) for value in values):
        raise UserError(
            f"segs {segs!r}: give [start, end] in seconds, or one such pair (or None) for each of {files} files"
        )
    return tuple(values)


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(isinstance(one, int | float) for one in value)

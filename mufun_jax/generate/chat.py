"""`MuFun`: load a model, ask it about songs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mufun_jax.errors import UserError
from mufun_jax.generate.constraint import Constraint, Grammars
from mufun_jax.generate.decode import Prompts, continuation_log_probabilities, next_token_logits
from mufun_jax.generate.engine import Draft, Engine, OnCompile, Rows, power_of_two
from mufun_jax.generate.prompt import Heard, Listener, Prompt
from mufun_jax.generate.question import Question, Segment, make_question
from mufun_jax.generate.sample import Sampling
from mufun_jax.generate.text_stream import TextStream, goes_round
from mufun_jax.model.compute import Compute
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn, render
from mufun_jax.text.tokenizer import Tokenizer
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.model_folder import Quantize, load_model
from mufun_jax.weights.params import Params
from mufun_jax.weights.safetensors_file import Advance

PREFIX_MEMORY = 2.0  # GiB
_LEAST_OPTION = 8  # tokens of an option are padded to a power of two that is at least this
_CHUNK = 32  # tokens between two looks at what has come
_FIRST_CHUNKS = (1, 1, 2, 4)  # of a stream: its first word comes at once
_STREAM_CHUNK = 8

Finish = Literal["stop", "length", "repetition"]


@dataclass(frozen=True)
class Answer:
    """Text, why it ended, and what was heard.

    `finish`: "stop" where the model ended it or a stop string came, "length" at the token limit, "repetition" where it
    went round in circles. `log_probabilities` are those of its `tokens`, in nats.
    """

    text: str
    finish: Finish
    heard: tuple[Heard, ...]
    tokens: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the model came to an end by itself."""
        return self.finish == "stop"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "finished": self.finished}


@dataclass(frozen=True)
class OptionScore:
    """An answer's summed log-probability in nats, `<|im_end|>` included, and the number of tokens that it sums."""

    option: str
    log_probability: float
    tokens: int


class MuFun:
    """A model that listens to songs and answers in text.

    >>> model = MuFun.from_pretrained("runs/demo/checkpoint")
    >>> model.chat("<audio>\\nWhat is the key?", "song.mp3")

    A song is encoded once: what was computed of it is kept, within `prefix_memory` GiB, for all further questions.
    """

    def __init__(
        self,
        model: MuFunModel,
        params: Params,
        tokenizer: Tokenizer,
        mesh: Mesh,
        *,
        prefix_memory: int | float = PREFIX_MEMORY,
        quantize_cache: Literal["int8"] | None = None,
        on_compile: OnCompile = lambda what, seconds: None,
    ):
        self.model = model
        self.params = params
        self.tokenizer = tokenizer
        self.mesh = mesh
        self.config = model.config
        self.listener = Listener(model.config, tokenizer)
        self.engine = Engine(
            model,
            params,
            mesh,
            end_of_turn=tokenizer.end_of_turn,
            padding=tokenizer.padding,
            prefix_memory=int(prefix_memory * 2**30),
            quantize_cache=quantize_cache == "int8",
            on_compile=on_compile,
        )
        self._grammars: Grammars | None = None

    @staticmethod
    def from_pretrained(
        path: str | Path,
        dtype: Literal["float32", "bfloat16"] = "bfloat16",
        mesh: Mesh | None = None,
        quantize: Quantize = None,
        *,
        quantize_cache: Literal["int8"] | None = None,
        prefix_memory: int | float = PREFIX_MEMORY,
        advance: Advance = lambda *_: None,
        on_compile: OnCompile = lambda what, seconds: None,
    ) -> "MuFun":
        """Loads a released folder, one of ours, or a model of the Hugging Face hub by its `owner/name`.

        Each device of `mesh` (by default all accelerators, split by fsdp) gets its part straight from the files.
        With quantize="int8" the decoder's matrices are int8 with a scale an output channel, with quantize_cache="int8"
        so are the keys and values of songs. `prefix_memory` is in GiB. `advance` is called with the bytes loaded, the
        bytes in all, and the name of a parameter, `on_compile` with what is compiled, when that begins (with None) and
        when it is done (with its seconds).

        Raises:
            CheckpointError, ConfigError: there is no model, or one that is damaged or of another kind.
        """
        mesh = mesh if mesh is not None else inference_mesh()
        loaded = load_model(local_folder(path), mesh, dtype, quantize, advance)
        return MuFun(
            MuFunModel(loaded.config.model, Compute(jnp.dtype(dtype).type)),
            loaded.params,
            loaded.tokenizer,
            mesh,
            prefix_memory=prefix_memory,
            quantize_cache=quantize_cache,
            on_compile=on_compile,
        )

    def chat(
        self,
        prompt: str,
        audio_files: str | Path | Sequence[str | Path] | None = None,
        segs: Segment | Sequence[Segment] = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> str:
        """The answer to a prompt about audio files, one for each `<audio>` in it, in order.

        A prompt without `<audio>` and with one file gets `<audio>\\n` in front. `segs` is the part of the file in
        seconds, [start, end], or a list with one entry (or None) a file. `history` are questions and answers before
        this one; the files are those of all `<audio>` from the first question on.
        """
        question = make_question(prompt, audio_files, segs, history)
        return self.answer(
            [question],
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_p, top_k, repetition_penalty),
            seed=seed,
            stop=stop,
            constraint=constraint,
        )[0].text

    def stream(
        self,
        prompt: str,
        audio_files: str | Path | Sequence[str | Path] | None = None,
        segs: Segment | Sequence[Segment] = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> Iterator[str]:
        """What `chat` returns, piece by piece as it comes, in whole characters."""
        streamed = self.stream_answer(
            make_question(prompt, audio_files, segs, history),
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_p, top_k, repetition_penalty),
            seed=seed,
            stop=stop,
            constraint=constraint,
        )
        return (piece for piece in streamed if isinstance(piece, str))

    def answer(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int = 64,
        sampling: Sampling = Sampling(),  # noqa: B008  immutable
        seed: int | Sequence[int] = 0,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> list[Answer]:
        """Answers questions, of different lengths; each gets what it would get alone.

        Those about one song share what is computed of it. `seed` is one for all, or one a question.

        Raises:
            UserError: with a `constraint`, an answer was not complete in `max_new_tokens`.
        """
        _check(max_new_tokens, stop)
        seeds = [seed] * len(questions) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(questions):
            raise UserError(f"{len(seeds)} seeds for {len(questions)} questions: give one, or one a question")
        prompts = [self.listener.prompt(question) for question in questions]
        answers: dict[int, Answer] = {}
        for rows in self.engine.rows_of(prompts):
            *_, (drafts, streams) = self._decode(
                rows, prompts, seeds, max_new_tokens, sampling, stop, constraint, lambda so_far: _CHUNK
            )
            answers |= self._answers(rows, prompts, drafts, streams, max_new_tokens, constraint)
        return [answers[place] for place in range(len(questions))]

    def stream_answer(
        self,
        question: Question,
        *,
        max_new_tokens: int = 64,
        sampling: Sampling = Sampling(),  # noqa: B008  immutable
        seed: int = 0,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> Iterator[str | Answer]:
        """Pieces of the answer's text as they come, and at the end the answer."""
        _check(max_new_tokens, stop)
        prompts = [self.listener.prompt(question)]
        rows = self.engine.rows_of(prompts)[0]

        def pieces() -> Iterator[str | Answer]:
            drafts, streams = [], [self._text_stream(stop)]
            run = self._decode(rows, prompts, [seed], max_new_tokens, sampling, stop, constraint, _stream_chunk)
            for drafts, streams in run:
                new = streams[0].push(_without_end(drafts[0], self.tokenizer.end_of_turn))
                if new:
                    yield new
            tokens = _without_end(drafts[0], self.tokenizer.end_of_turn)
            rest = streams[0].end(tokens)
            if rest:
                yield rest
            yield self._answers(rows, prompts, drafts, streams, max_new_tokens, constraint)[0]

        return pieces()

    def logits(
        self,
        prompt: str,
        audio_files: str | Path | Sequence[str | Path] | None = None,
        segs: Segment | Sequence[Segment] = None,
    ) -> Float[np.ndarray, " V"]:
        """Next-token logits after the prompt, float32 [vocabulary]."""
        prompts = self._whole([self.listener.prompt(make_question(prompt, audio_files, segs))])
        with jax.set_mesh(self.mesh):
            return np.asarray(next_token_logits(self.model, self.params, prompts))[0]

    def score(
        self,
        prompt: str,
        audio_files: str | Path | Sequence[str | Path] | None = None,
        options: Sequence[str] = (),
        segs: Segment | Sequence[Segment] = None,
    ) -> list[OptionScore]:
        """How likely the model finds each option as its whole answer, the end of its turn included."""
        return self.score_options(make_question(prompt, audio_files, segs), options)

    def score_options(self, question: Question, options: Sequence[str]) -> list[OptionScore]:
        """`score` of a question. Options are rows of one batch that share the song."""
        if isinstance(options, str) or not options or not all(isinstance(option, str) for option in options):
            raise UserError(f"options {options!r}: give a list of answers, for instance ['major', 'minor']")
        prompt = self.listener.prompt(question)
        answers = [self._answer_tokens(question, option) for option in options]
        rows = power_of_two(len(options))
        filled = [*answers, *answers[:1] * (rows - len(answers))]
        texts = self.engine.texts_of([[*prompt.text, *answer] for answer in filled])
        counts = np.array([len(answer) for answer in filled], np.int32)
        most = power_of_two(int(counts.max()), _LEAST_OPTION)
        prefix = self.engine.prefix(prompt)
        with jax.set_mesh(self.mesh):
            found = np.asarray(
                continuation_log_probabilities(self.model, self.params, prefix, texts, counts, most), np.float64
            )
        return [
            OptionScore(option, float(row.sum()), len(answer))
            for option, answer, row in zip(options, answers, found, strict=False)
        ]

    def _decode(
        self,
        rows: Rows,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling,
        stop: Sequence[str],
        constraint: Constraint | None,
        chunk: Any,
    ) -> Iterator[tuple[list[Draft], list[TextStream]]]:
        """The engine's drafts, with the text of each; rows that a stop string or a loop ends are told to end."""
        places = rows.places
        streams = [self._text_stream(stop) for _ in places]
        allowed = None
        if constraint is not None:
            allowed = self._grammar_maker().matchers(constraint, len(places)).allowed
            chunk = lambda so_far: 1  # noqa: E731
        run = self.engine.decode(
            rows,
            prompts,
            seeds,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            chunk=chunk,
            allowed=allowed,
        )
        ended = None
        while True:
            try:
                drafts = run.send(ended) if ended is not None else next(run)  # pyright: ignore[reportAttributeAccessIssue]
            except StopIteration:
                return
            texts = [_without_end(draft, self.tokenizer.end_of_turn) for draft in drafts]
            if stop:
                for stream, text in zip(streams, texts, strict=True):
                    stream.read(text)
            yield drafts, streams
            ended = [stream.stopped or goes_round(text) for stream, text in zip(streams, texts, strict=True)]

    def _answers(
        self,
        rows: Rows,
        prompts: Sequence[Prompt],
        drafts: Sequence[Draft],
        streams: Sequence[TextStream],
        max_new_tokens: int,
        constraint: Constraint | None,
    ) -> dict[int, Answer]:
        found = {}
        for place, draft, stream in zip(rows.places, drafts, streams, strict=True):
            if place is None:
                continue
            tokens = _without_end(draft, self.tokenizer.end_of_turn)
            stream.end(tokens)
            ended = len(tokens) < len(draft.tokens) or stream.stopped
            finish: Finish = "repetition" if goes_round(tokens) else "stop" if ended else "length"
            if constraint is not None and not ended:
                raise UserError(
                    f"the answer was not complete after {len(tokens)} tokens: {stream.text[:80]!r}; allow more "
                    f"(max_new_tokens is {max_new_tokens}), or ask for less"
                )
            scores = tuple(map(float, draft.log_probabilities[: len(tokens)]))
            found[place] = Answer(stream.text, finish, prompts[place].heard, tuple(tokens), scores)
        return found

    def _text_stream(self, stop: Sequence[str]) -> TextStream:
        return TextStream(self.tokenizer.decode, stop)

    def _grammar_maker(self) -> Grammars:
        if self._grammars is None:
            self._grammars = Grammars(self.tokenizer, self.config.decoder.vocab_size)
        return self._grammars

    def _answer_tokens(self, question: Question, answer: str) -> tuple[int, ...]:
        """The tokens of an answer as training has them: its text and the end of the turn."""
        if AUDIO_PLACEHOLDER in answer:
            raise UserError(f"the option {answer!r} has {AUDIO_PLACEHOLDER} in it; songs stand in the prompt only")
        last = self.tokenizer.encode_pieces(render([*question.history, Turn(question.prompt, answer)]))[-1]
        return tuple(token for token, is_target in zip(last.ids, last.is_target, strict=True) if is_target)

    def _whole(self, prompts: Sequence[Prompt]) -> Prompts:
        """Whole prompts, padded to one length (in steps) and one number of windows."""
        rows, length = len(prompts), power_of_two(max(len(one.spliced.tokens) for one in prompts), 64)
        windows = max(len(one.windows) for one in prompts)
        tokens = np.full((rows, length), self.tokenizer.padding, np.int32)
        audio_slot = np.full((rows, length), -1, np.int32)
        samples = np.zeros((rows, windows, self.config.encoder.window_samples), np.float32)
        lengths = np.array([len(one.spliced.tokens) for one in prompts], np.int32)
        for row, one in enumerate(prompts):
            tokens[row, : lengths[row]] = one.spliced.tokens
            audio_slot[row, : lengths[row]] = one.spliced.audio_slot
            samples[row, : len(one.windows)] = one.windows
        return Prompts(tokens, audio_slot, lengths, samples)


def _stream_chunk(so_far: int) -> int:
    """Few tokens at first."""
    total = 0
    for chunk in _FIRST_CHUNKS:
        if so_far == total:
            return chunk
        total += chunk
    return _STREAM_CHUNK


def _without_end(draft: Draft, end_of_turn: int) -> list[int]:
    """An answer's tokens before the end of the turn."""
    tokens = draft.tokens.tolist()
    return tokens[: tokens.index(end_of_turn)] if end_of_turn in tokens else tokens


def _check(max_new_tokens: int, stop: Sequence[str]) -> None:
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens {max_new_tokens}: at least 1")
    if isinstance(stop, str) or not all(isinstance(one, str) and one for one in stop):
        raise UserError(f"stop {stop!r}: give a list of strings, for instance ['\\n']")

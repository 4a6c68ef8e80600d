"""`MuFun`: load a model, ask it about songs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mufun_jax.errors import UserError
from mufun_jax.generate.answer import Answer, Finish, OptionScore, complete, joined, labelled
from mufun_jax.generate.constraint import Constraint, Grammars
from mufun_jax.generate.embed import Features, embed
from mufun_jax.generate.engine import Draft, Engine, OnCompile, Rows
from mufun_jax.generate.prompt import Listener, Prompt
from mufun_jax.generate.question import Audio, Long, Question, Segment, make_question
from mufun_jax.generate.sample import Sampling
from mufun_jax.generate.scoring import score_questions
from mufun_jax.generate.text_stream import TextStream, goes_round, stream_chunk
from mufun_jax.model.compute import Compute
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.tokenizer import Tokenizer
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.model_folder import Quantize, load_model
from mufun_jax.weights.params import Params
from mufun_jax.weights.safetensors_file import Advance

PREFIX_MEMORY = 2.0  # GiB
_CHUNK = 32  # tokens between two looks at what has come


class MuFun:
    """A model that listens to songs and answers in text.

    >>> model = MuFun.from_pretrained("runs/demo/checkpoint")
    >>> model.chat("<audio>\\nWhat is the key?", "song.mp3")

    A song is encoded once: what is computed of it is kept, within `prefix_memory` GiB, for all further questions.
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
        self.listener = Listener(model.config, tokenizer, self.engine.most_windows)
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
        audio_files: Audio | Sequence[Audio] | None = None,
        segs: Segment | Sequence[Segment] = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        long: Long = "first",
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

        A file is a path, the bytes of one, or (samples, rate in Hz) as librosa gives them. A prompt without `<audio>`
        and with one file gets `<audio>\\n` in front. `segs` is the part of the file in seconds, [start, end], or a
        list with one entry (or None) a file. `history` are questions and answers before this one; the files are those
        of all `<audio>` from the first question on.

        Of a song longer than the model was trained on, `long` hears the "first" part, or, with "window", part after
        part with an answer each, or "all" at once, as far as `prefix_memory` holds it.
        """
        (answer,) = self.answer(
            [make_question(prompt, audio_files, segs, history, long)],
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_p, top_k, repetition_penalty),
            seed=seed,
            stop=stop,
            constraint=constraint,
        )
        return complete(answer, constraint).text

    def stream(
        self,
        prompt: str,
        audio_files: Audio | Sequence[Audio] | None = None,
        segs: Segment | Sequence[Segment] = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        long: Long = "first",
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
            make_question(prompt, audio_files, segs, history, long),
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_p, top_k, repetition_penalty),
            seed=seed,
            stop=stop,
            constraint=constraint,
        )
        return (piece for piece in streamed if isinstance(piece, str) and piece)

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

        Those about one song share what is computed of it. `seed` is one for all, or one a question. With a
        `constraint` an answer whose `finish` is "length" is only the beginning of what it allows.
        """
        _check(max_new_tokens, stop, constraint)
        seeds = [seed] * len(questions) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(questions):
            raise UserError(f"{len(seeds)} seeds for {len(questions)} questions: give one, or one a question")
        passes = [self._passes(question, constraint) for question in questions]
        prompts = [self.listener.prompt(question) for several in passes for question in several]
        of_each = [seed for seed, several in zip(seeds, passes, strict=True) for _ in several]
        answers: dict[int, Answer] = {}
        for rows in self.engine.rows_of(prompts):
            *_, (drafts, streams) = self._decode(
                rows, prompts, of_each, max_new_tokens, sampling, stop, constraint, lambda so_far: _CHUNK
            )
            answers |= self._answers(rows, prompts, drafts, streams, constraint)
        in_order = iter([answers[place] for place in range(len(prompts))])
        return [
            next(in_order) if len(several) == 1 else joined([(*_part(one), next(in_order)) for one in several])
            for several in passes
        ]

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
        """Pieces of the answer's text as they come, and at the end the answer.

        A piece is empty where tokens have come and no whole character: whoever iterates may end it there too.
        """
        _check(max_new_tokens, stop, constraint)
        passes = self._passes(question, constraint)
        first = self.listener.prompt(passes[0])  # what is wrong with it is raised here, not in the middle

        def pieces_of(prompt: Prompt) -> Iterator[str | Answer]:
            rows, drafts, streams = self.engine.rows_of([prompt])[0], [], [self._text_stream(stop)]
            run = self._decode(rows, [prompt], [seed], max_new_tokens, sampling, stop, constraint, stream_chunk)
            for drafts, streams in run:
                yield streams[0].push(_without_end(drafts[0], self.tokenizer.end_of_turn))
            yield streams[0].end(_without_end(drafts[0], self.tokenizer.end_of_turn))
            yield complete(self._answers(rows, [prompt], drafts, streams, constraint)[0], constraint)

        def pieces_of_passes() -> Iterator[str | Answer]:
            parts = []
            for one in passes:
                if parts:
                    yield "\n"
                for piece in labelled(*_part(one), pieces_of(self.listener.prompt(one))):
                    if isinstance(piece, Answer):
                        parts.append((*_part(one), piece))
                    else:
                        yield piece
            yield joined(parts)

        return pieces_of(first) if len(passes) == 1 else pieces_of_passes()

    def logits(
        self,
        prompt: str,
        audio_files: Audio | Sequence[Audio] | None = None,
        segs: Segment | Sequence[Segment] = None,
    ) -> Float[np.ndarray, " V"]:
        """Next-token logits after the prompt, float32 [vocabulary]."""
        return self.engine.logits(self.listener.prompt(make_question(prompt, audio_files, segs)))

    def score(
        self,
        prompt: str,
        audio_files: Audio | Sequence[Audio] | None = None,
        options: Sequence[str] = (),
        segs: Segment | Sequence[Segment] = None,
    ) -> list[OptionScore]:
        """How likely the model finds each option as its whole answer, the end of its turn included."""
        return self.score_options(make_question(prompt, audio_files, segs), options)

    def score_options(self, question: Question, options: Sequence[str]) -> list[OptionScore]:
        """`score` of a question. Options are rows of one batch that share the song."""
        return self.score_questions([question], [options])[0]

    def score_questions(
        self, questions: Sequence[Question], options: Sequence[Sequence[str]]
    ) -> list[list[OptionScore]]:
        """`score` of several questions, each with its own options. Those about one song share it."""
        return score_questions(self.engine, self.listener, self.tokenizer, questions, options)

    def embed(
        self,
        audio_files: Audio | Sequence[Audio],
        segs: Segment | Sequence[Segment] = None,
        *,
        features: Features = "connector",
        pool: bool = True,
    ) -> Float[np.ndarray, "... D"] | list[Float[np.ndarray, "tokens D"]]:
        """A vector for each song, float32: the mean over its seconds of what the model makes of them.

        Of one song [D], of a list of them [songs, D]. `features` are the "connector"'s, as wide as the decoder, or the
        "encoder"'s: its tapped layers side by side. Without `pool` each song's are [tokens, D], 10 a second. All of a
        song is heard, up to an hour.
        """
        return embed(self.model, self.params, self.mesh, self.listener, audio_files, segs, features, pool)

    def _passes(self, question: Question, constraint: Constraint | None) -> list[Question]:
        """The question, or with long="window" one for each part of its song."""
        if question.long != "window":
            return [question]
        if constraint is not None:
            raise UserError("several passes give several answers, and a form is that of one; leave one of them out")
        return self.listener.passes(question)

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
            loops = [constraint is None and goes_round(text) for text in texts]
            ended = [stream.stopped or loop for stream, loop in zip(streams, loops, strict=True)]

    def _answers(
        self,
        rows: Rows,
        prompts: Sequence[Prompt],
        drafts: Sequence[Draft],
        streams: Sequence[TextStream],
        constraint: Constraint | None,
    ) -> dict[int, Answer]:
        found = {}
        for place, draft, stream in zip(rows.places, drafts, streams, strict=True):
            if place is None:
                continue
            tokens = _without_end(draft, self.tokenizer.end_of_turn)
            stream.end(tokens)
            ended = len(tokens) < len(draft.tokens) or stream.stopped
            loops = constraint is None and goes_round(tokens)
            finish: Finish = "repetition" if loops else "stop" if ended else "length"
            scores = tuple(map(float, draft.log_probabilities[: len(tokens)]))
            found[place] = Answer(stream.text, finish, prompts[place].heard, tuple(tokens), scores)
        return found

    def _text_stream(self, stop: Sequence[str]) -> TextStream:
        return TextStream(self.tokenizer.decode, stop)

    def _grammar_maker(self) -> Grammars:
        if self._grammars is None:
            self._grammars = Grammars(self.tokenizer, self.config.decoder.vocab_size)
        return self._grammars


def _part(question: Question) -> tuple[int | float, int | float]:
    """The start and the end of what a pass is about, in seconds."""
    assert question.segments[0] is not None
    start, end = question.segments[0]
    return start, end


def _without_end(draft: Draft, end_of_turn: int) -> list[int]:
    """An answer's tokens before the end of the turn."""
    tokens = draft.tokens.tolist()
    return tokens[: tokens.index(end_of_turn)] if end_of_turn in tokens else tokens


def _check(max_new_tokens: int, stop: Sequence[str], constraint: Constraint | None) -> None:
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens {max_new_tokens}: at least 1")
    if isinstance(stop, str) or not all(isinstance(one, str) and one for one in stop):
        raise UserError(f"stop {stop!r}: give a list of strings, for instance ['\\n']")
    if stop and constraint is not None:
        raise UserError("a stop string would end an answer before its form is complete; leave one of them out")

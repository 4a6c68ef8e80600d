"""Asks a batch of a benchmark's rows, each in three ways, and says what became of it.

A reply to the benchmark's own prompt (greedy); the log-probability of each option, its letter alone and its text alone;
and a choice where nothing but a letter could be said (but a text where the benchmark shows options without letters).
What is wrong with a row, its audio for one, is its result's error. Nothing else is caught.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from mufun_jax.errors import UserError
from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE
from mufun_jax.evaluate.asking.plan import Asking
from mufun_jax.evaluate.benchmark_question import LETTERS, Song
from mufun_jax.evaluate.digests import audio_digest, text_digest
from mufun_jax.evaluate.letters.judge import Judge
from mufun_jax.evaluate.letters.letter import read_letter
from mufun_jax.evaluate.result import OptionLogProbability, Result
from mufun_jax.generate.answer import Answer, OptionScore
from mufun_jax.generate.constraint import Constraint
from mufun_jax.generate.prompt import Prompt
from mufun_jax.generate.question import Question

MAX_NEW_TOKENS = 64
_MOST_TOKENS = 16_384  # of a prompt's text; a benchmark's have some hundred
_SEED = 0  # nothing is drawn: it is there to be told


class _Listens(Protocol):
    def prompt(self, question: Question) -> Prompt: ...


class Model(Protocol):
    """What is asked of a model: a part of `MuFun`."""

    @property
    def listener(self) -> _Listens: ...

    def answer(
        self, questions: Sequence[Question], *, max_new_tokens: int, constraint: Constraint | None = None
    ) -> list[Answer]: ...

    def score_questions(
        self, questions: Sequence[Question], options: Sequence[Sequence[str]]
    ) -> list[list[OptionScore]]: ...


@dataclass(frozen=True)
class _Ready:
    """A row that can be asked: its question as the model takes it, and how much of its songs is heard."""

    asking: Asking
    question: Question
    seconds_used: float
    seconds_dropped: float


@dataclass
class Asker:
    """Asks a model. Digests of songs are kept, so that each file is read once for them."""

    model: Model
    model_digest: str
    code_digest: str
    judge: Judge | None = None
    _digests: dict[str, str | None] = field(default_factory=dict)

    def ask(self, batch: Sequence[Asking]) -> list[Result]:
        """Results in the order of the rows."""
        loaded: dict[str, Path | bytes] = {}
        found: list[_Ready | str] = [self._ready(asking, loaded) for asking in batch]
        ready = [one for one in found if isinstance(one, _Ready)]
        answered = iter(self._asked(ready) if ready else [])
        return [
            replace(self._blank(asking), error=one) if isinstance(one, str) else next(answered)
            for asking, one in zip(batch, found, strict=True)
        ]

    def _ready(self, asking: Asking, loaded: dict[str, Path | bytes]) -> _Ready | str:
        """The row to ask, or what is wrong with it."""
        sound = asking.sound
        try:
            files = tuple(self._loaded(song, loaded) for song in (sound.songs if sound else ()))
            segments = (sound.segment if sound else None, *[None] * len(files))[: len(files)]
            question = Question(asking.prompt, files, segments)
            prompt = self.model.listener.prompt(question)
        except UserError as error:
            return str(error)
        if len(prompt.text) > _MOST_TOKENS:
            return f"the question has {len(prompt.text)} tokens; at most {_MOST_TOKENS} are asked"
        return _Ready(
            asking,
            question,
            float(sum(heard.seconds_used for heard in prompt.heard)),
            float(sum(heard.seconds_dropped for heard in prompt.heard)),
        )

    def _loaded(self, song: Song, loaded: dict[str, Path | bytes]) -> Path | bytes:
        if song.key not in loaded:
            audio = loaded[song.key] = song.load()
            if song.key not in self._digests:
                there = isinstance(audio, bytes) or audio.is_file()
                self._digests[song.key] = audio_digest(audio) if there else None
        return loaded[song.key]

    def _asked(self, ready: Sequence[_Ready]) -> list[Result]:
        questions = [one.question for one in ready]
        replies = self.model.answer(questions, max_new_tokens=MAX_NEW_TOKENS)
        options = [[*LETTERS[: len(one.asking.shown_options)], *one.asking.shown_options] for one in ready]
        scores = self.model.score_questions(questions, options)
        chosen = self._constrained(ready)
        return [
            self._result(one, reply.text, _log_probabilities(of_options), chosen[place])
            for place, (one, reply, of_options) in enumerate(zip(ready, replies, scores, strict=True))
        ]

    def _constrained(self, ready: Sequence[_Ready]) -> dict[int, int | None]:
        """The place among the shown options that each row chooses, by the row's place."""
        rows: dict[tuple[str, ...], list[int]] = {}
        for place, one in enumerate(ready):
            rows.setdefault(_choices(one.asking), []).append(place)
        chosen: dict[int, int | None] = {}
        for choices, places in rows.items():
            answers = self.model.answer(
                [ready[place].question for place in places],
                max_new_tokens=MAX_NEW_TOKENS,
                constraint=Constraint.choices(choices),
            )
            for place, answer in zip(places, answers, strict=True):
                said = answer.text.strip()
                known = [number for number, choice in enumerate(choices) if choice.strip() == said]
                chosen[place] = known[0] if len(known) == 1 and answer.finished else None
        return chosen

    def _result(
        self, one: _Ready, reply: str, scores: tuple[OptionLogProbability, ...], constrained: int | None
    ) -> Result:
        asking, order = one.asking, one.asking.option_order
        letter = read_letter(reply, asking.shown_options)
        judged = None
        if self.judge is not None:
            judged = self.judge.judge(_without_options(asking), asking.shown_options, reply)
        return replace(
            self._blank(asking),
            reply=reply,
            letter=None if letter is None else order[letter],
            judged=None if judged is None else order[judged],
            log_probabilities=scores,
            constrained=None if constrained is None else order[constrained],
            seconds_used=one.seconds_used,
            seconds_dropped=one.seconds_dropped,
        )

    def _blank(self, asking: Asking) -> Result:
        """What a result says of its row, whatever becomes of it."""
        question, prompt = asking.question, asking.prompt
        return Result(
            id=question.id,
            set=question.set,
            group=question.group,
            song=question.song.key,
            condition=asking.condition,
            rotation=asking.rotation,
            option_order=asking.option_order,
            gold=question.answer,
            seed=_SEED,
            prompt=prompt,
            reply=None,
            letter=None,
            judged=None,
            log_probabilities=None,
            constrained=None,
            error=None,
            seconds_used=0.0,
            seconds_dropped=0.0,
            audio_digest=self._digest_of(asking),
            prompt_digest=text_digest(prompt),
            model_digest=self.model_digest,
            code_digest=self.code_digest,
        )

    def _digest_of(self, asking: Asking) -> str | None:
        """That of the file; of several, that of their digests. None where nothing is heard, or a file is missing."""
        digests = [self._digests.get(song.key) for song in (asking.sound.songs if asking.sound else ())]
        known = [digest for digest in digests if digest is not None]
        if not digests or len(known) < len(digests):
            return None
        return known[0] if len(known) == 1 else text_digest(" ".join(known))


def _choices(asking: Asking) -> tuple[str, ...]:
    if asking.question.layout.letters:
        return tuple(LETTERS[: len(asking.question.options)])
    return asking.shown_options


def _log_probabilities(scores: Sequence[OptionScore]) -> tuple[OptionLogProbability, ...]:
    """Of letters and then texts."""
    half = len(scores) // 2
    return tuple(
        OptionLogProbability(letter.log_probability, text.log_probability, text.tokens)
        for letter, text in zip(scores[:half], scores[half:], strict=True)
    )


def _without_options(asking: Asking) -> str:
    return " ".join(part.strip() for part in asking.question.prompt.split(OPTIONS_PLACE)).strip()

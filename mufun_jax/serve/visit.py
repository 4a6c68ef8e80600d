"""What the page's server knows of one visitor: a song, the part of it that is heard, and what was said about it."""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError
from mufun_jax.generate.question import Question
from mufun_jax.generate.tags import TAGS, tag_question
from mufun_jax.serve.limits import Limits
from mufun_jax.serve.song import check_song, peaks
from mufun_jax.serve.worker import Job
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn

NEW_TOKENS, TAG_TOKENS = 256, 1024  # of an answer
_BARS = 240  # of the waveform

Segment = tuple[float, float]


@dataclass(frozen=True)
class Loader:
    """How the model is loaded, as Python says it."""

    checkpoint: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join([repr(self.checkpoint), *(f"{name}={value!r}" for name, value in self.options.items())])


@dataclass
class Visit:
    """A conversation is about one song and one segment of it; another of either begins another."""

    song: Path | None = None
    seconds: float = 0.0
    peaks: list[float] = field(default_factory=list)
    segment: Segment | None = None
    turns: list[Turn] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)  # as the page shows them
    tagged: bool = False
    job: Job[Any] | None = None

    def take(self, song: Path, limits: Limits) -> None:
        """Reads a song. Raises AudioError."""
        check_song(song, limits)
        self.seconds, self.peaks = peaks(song, _BARS)
        self.song = song

    def forget(self) -> None:
        """Deletes the song, and what was said about it."""
        if self.song is not None:
            self.song.unlink(missing_ok=True)
        self.song, self.seconds, self.peaks, self.segment = None, 0.0, [], None
        self.start_anew()

    def start_anew(self) -> None:
        """Another conversation about the same."""
        self.turns, self.messages, self.tagged = [], [], False

    def choose(self, start: float | None, end: float | None) -> None:
        """Hears only this part of the song, from now on; all of it for None. Raises UserError for what is no part."""
        first, last = start or 0.0, self.seconds if end is None else end
        chosen = None if (first, last) == (0.0, self.seconds) else (round(first, 2), round(last, 2))
        if chosen is not None and not 0 <= chosen[0] < chosen[1] <= self.seconds + 0.01:
            raise UserError(f"{first:g} to {last:g} s is no part of the song, which has {self.seconds:.2f} s")
        if chosen != self.segment:
            self.segment, self.turns, self.tagged = chosen, [], False

    def question(self, text: str, limits: Limits) -> Question:
        """What the model is asked: the conversation so far, and a text that goes on with it. Raises UserError."""
        if self.song is None:
            raise UserError("Give a song first: drop one, or record it")
        if not text.strip():
            raise UserError("The question is empty")
        if AUDIO_PLACEHOLDER in text:
            raise UserError(f"Write no {AUDIO_PLACEHOLDER}: the question is about the song above")
        prompt = text if self.turns else f"{AUDIO_PLACEHOLDER}\n{text}"
        said = [prompt, *(part for turn in self.turns for part in (turn.question, turn.answer or ""))]
        if sum(len(part.encode()) for part in said) > limits.text_bytes:
            raise UserError(f"More than {limits.text_bytes} bytes were said about this song; choose it anew")
        return Question(prompt, (self.song,), (self.segment,), tuple(self.turns))

    def tag_question(self) -> Question:
        """Asks for tags, whatever was said before."""
        if self.song is None:
            raise UserError("Give a song first: drop one, or record it")
        return Question(tag_question(list(TAGS)), (self.song,), (self.segment,))

    def is_about(self, question: Question) -> bool:
        """Whether a question is about what is heard now."""
        return (self.song,) == question.audio_files and (self.segment,) == question.segments

    def python(self, loader: Loader) -> str:
        """A program that asks what was asked here since the song or the segment was chosen."""
        if self.song is None or not (self.turns or self.tagged):
            return ""
        lines = ["from mufun_jax import MuFun"]
        if self.tagged:
            lines.append("from mufun_jax.generate.tags import TAGS, tag_constraint, tag_question")
        lines += ["", f"model = MuFun.from_pretrained({loader})", f"song = {self.song.name!r}"]
        segment = f", segs={list(self.segment)}" if self.segment else ""
        if self.turns:
            questions = "".join(f"    {json.dumps(turn.question, ensure_ascii=False)},\n" for turn in self.turns)
            lines += [
                f"questions = [\n{questions}]",
                "history = []",
                "for question in questions:",
                f"    answer = model.chat(question, song{segment}, history=history, max_new_tokens={NEW_TOKENS})",
                "    history.append((question, answer))",
                "    print(answer)",
            ]
        if self.tagged:
            asked = "tag_question(list(TAGS)), song"
            form = f"max_new_tokens={TAG_TOKENS}, constraint=tag_constraint(list(TAGS))"
            lines.append(f"print(model.chat({asked}{segment}, {form}))")
        return "\n".join(lines) + "\n"


class Visits:
    """The visits that go on, by Gradio's session. The one that was silent longest gives way to a new one."""

    def __init__(self, most: int, cancel: Callable[[Job[Any]], None]):
        self._most, self._cancel = most, cancel
        self._visits: OrderedDict[str, Visit] = OrderedDict()

    def __getitem__(self, session: str | None) -> Visit:
        key = session or ""
        visit = self._visits.setdefault(key, Visit())
        self._visits.move_to_end(key)
        while len(self._visits) > self._most:
            self.end(next(iter(self._visits)))
        return visit

    def end(self, session: str | None) -> None:
        """Ends the visitor's job, and deletes the song."""
        visit = self._visits.pop(session or "", None)
        if visit is not None:
            self.stop(visit)
            visit.forget()

    def stop(self, visit: Visit) -> None:
        if visit.job is not None:
            self._cancel(visit.job)

"""The body of `POST /v1/chat/completions`, as OpenAI's clients send it, and the question that it is.

https://platform.openai.com/docs/api-reference/chat/create, as far as it can be had here: audio comes as `input_audio`
(base64), never as a path or an address.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mufun_jax.errors import UserError
from mufun_jax.generate.constraint import Constraint
from mufun_jax.generate.question import Question
from mufun_jax.generate.sample import Sampling
from mufun_jax.serve.limits import Limits
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn

_FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "m4a", "aac")


class _Part(BaseModel):
    """Ignores what later versions of the interface may add."""

    model_config = ConfigDict(extra="ignore")


class TextPart(_Part):
    type: Literal["text"]
    text: str


class InputAudio(_Part):
    data: str  # base64
    format: str


class AudioPart(_Part):
    type: Literal["input_audio"]
    input_audio: InputAudio


class Message(_Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | AudioPart, Field(discriminator="type")]]


class StreamOptions(_Part):
    include_usage: bool = False


class ChatRequest(_Part):
    """What of it matters here; anything else of OpenAI's that would change the answer is refused."""

    messages: Annotated[list[Message], Field(min_length=1)]
    model: str = ""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    response_format: dict[str, Any] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def sampling(self) -> Sampling:
        """Greedy where no temperature is given: a question about a song has one answer."""
        return Sampling(self.temperature or 0.0, self.top_p or 1.0)

    @property
    def stops(self) -> tuple[str, ...]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in stops if stop)

    @property
    def constraint(self) -> Constraint | None:
        """Of `response_format`. Raises UserError for a kind that is not known."""
        wanted = self.response_format or {"type": "text"}
        match wanted.get("type"):
            case "text":
                return None
            case "json_object":
                return Constraint.json()
            case "json_schema":
                return Constraint.json((wanted.get("json_schema") or {}).get("schema") or {"type": "object"})
            case kind:
                raise UserError(f"response_format {json.dumps(kind)}: is none of text, json_object, json_schema")


@dataclass(frozen=True)
class _Said:
    """The text of a message, with `<audio>` for each song in it, and the songs."""

    role: str
    text: str
    songs: tuple[bytes, ...]


@contextmanager
def question_of(request: ChatRequest, limits: Limits) -> Iterator[Question]:
    """The question of a request; its songs are in files that are gone when the block ends. Raises UserError."""
    said = [_said(message, limits) for message in request.messages]
    if sum(len(one.text) for one in said) > limits.text_characters:
        raise UserError(f"the messages have more than {limits.text_characters} characters together")
    if sum(len(one.songs) for one in said) > limits.audio_files:
        raise UserError(f"more than {limits.audio_files} songs; ask about fewer at once")
    *history, prompt = _turns(said)
    if prompt.answer is not None or not prompt.question.replace(AUDIO_PLACEHOLDER, "").strip():
        raise UserError("the last message must be the user's, and ask something")
    with TemporaryDirectory(prefix="mufun-") as folder:
        files = []
        for number, song in enumerate(song for one in said for song in one.songs):
            path = Path(folder) / f"song {number + 1}"
            path.write_bytes(song)
            files.append(path)
        yield Question(prompt.question, tuple(files), (None,) * len(files), tuple(history))


def _said(message: Message, limits: Limits) -> _Said:
    parts = message.content if isinstance(message.content, list) else [TextPart(type="text", text=message.content)]
    text, songs = "", []
    for part in parts:
        if isinstance(part, TextPart):
            if AUDIO_PLACEHOLDER in part.text:
                raise UserError(f"{AUDIO_PLACEHOLDER} stands in a text; send the song as an input_audio part")
            text += part.text
        elif message.role != "user":
            raise UserError(f"input_audio in a message of the {message.role}; songs come from the user")
        else:
            songs.append(_song(part.input_audio, limits))
            text += f"{AUDIO_PLACEHOLDER}\n"
    return _Said(message.role, text, tuple(songs))


def _song(audio: InputAudio, limits: Limits) -> bytes:
    if audio.format.lower() not in _FORMATS:
        raise UserError(f"input_audio.format {audio.format!r}: is none of {', '.join(_FORMATS)}")
    if len(audio.data) > limits.upload_bytes * 4 // 3 + 4:
        raise UserError(f"an audio file has more than {limits.upload_bytes // 2**20} MB")
    try:
        data = base64.b64decode(audio.data, validate=True)
    except (binascii.Error, ValueError):
        raise UserError("input_audio.data is no base64") from None
    if not data:
        raise UserError("input_audio.data is empty")
    return data


def _turns(said: Sequence[_Said]) -> list[Turn]:
    """Questions with their answers. What the system says stands before the question that follows it."""
    turns: list[Turn] = []
    before = ""
    for one in said:
        if one.role == "assistant":
            if before or not turns or turns[-1].answer is not None:
                raise UserError("a message of the assistant that answers none of the user's")
            turns[-1] = Turn(turns[-1].question, one.text)
        elif one.role == "user" and turns and turns[-1].answer is None:
            turns[-1] = Turn(f"{turns[-1].question}\n{before}{one.text}")
            before = ""
        elif one.role == "user":
            turns.append(Turn(before + one.text))
            before = ""
        else:
            before += f"{one.text}\n"
    if not turns:
        raise UserError("no message of the user: ask something")
    return turns

"""The body of `POST /v1/chat/completions`, as OpenAI's clients send it, and the question that it is.

https://platform.openai.com/docs/api-reference/chat/create, as far as it can be had here: audio comes as `input_audio`
(base64), never as a path or an address. With `"segment": [start, end]` beside `data`, in seconds, only that is heard.
"""

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mufun_jax.errors import UserError
from mufun_jax.generate.constraint import Constraint
from mufun_jax.generate.question import Question
from mufun_jax.generate.sample import Sampling
from mufun_jax.serve.limits import Limits
from mufun_jax.serve.song import check_song
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn

_FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "aiff")
_MOST_SEED = 2**32

Stop = Annotated[str, Field(max_length=200)]


class _Part(BaseModel):
    """Ignores what later versions of the interface may add."""

    model_config = ConfigDict(extra="ignore")


class TextPart(_Part):
    type: Literal["text"]
    text: str


class InputAudio(_Part):
    data: str  # base64
    format: str
    segment: tuple[float, float] | None = None  # seconds; ours


class AudioPart(_Part):
    type: Literal["input_audio"]
    input_audio: InputAudio


class Message(_Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | AudioPart, Field(discriminator="type")]]


class StreamOptions(_Part):
    include_usage: bool = False


class JsonSchema(_Part):
    schema_: Annotated[dict[str, Any], Field(alias="schema")] = {"type": "object"}


class ResponseFormat(_Part):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema = JsonSchema()


class ChatRequest(_Part):
    """What of it matters here. What would change the answer and cannot be had is refused where it is asked for."""

    messages: Annotated[list[Message], Field(min_length=1)]
    model: str = ""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    response_format: ResponseFormat | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    modalities: list[Literal["text"]] | None = None

    def new_tokens(self, limits: Limits) -> int:
        """The longest answer. Raises UserError for a longer one than is given."""
        wanted = self.max_completion_tokens or self.max_tokens or min(256, limits.new_tokens)
        if wanted > limits.new_tokens:
            raise UserError(f"max_tokens {wanted}: at most {limits.new_tokens} are given")
        return wanted

    @property
    def sampling(self) -> Sampling:
        """Greedy where no temperature is given: a question about a song has one answer."""
        return Sampling(self.temperature or 0.0, self.top_p or 1.0)

    @property
    def sampling_seed(self) -> int:
        return (self.seed or 0) % _MOST_SEED

    @property
    def stops(self) -> tuple[str, ...]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in stops if stop)

    @property
    def constraint(self) -> Constraint | None:
        """Of `response_format`."""
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        return Constraint.json(wanted.json_schema.schema_ if wanted.type == "json_schema" else None)


@dataclass(frozen=True)
class _Said:
    """The text of a message, with `<audio>` for each song in it, and the songs."""

    role: str
    text: str
    songs: tuple[InputAudio, ...]


def question_of(request: ChatRequest, limits: Limits, folder: Path) -> Question:
    """The question of a request; its songs are written to files in `folder`. Raises UserError."""
    said = [_said(message) for message in request.messages]
    songs = [song for one in said for song in one.songs]
    if sum(len(one.text.encode()) for one in said) > limits.text_bytes:
        raise UserError(f"the messages have more than {limits.text_bytes} bytes of text together")
    if not songs:
        raise UserError("no song: send one as an input_audio part of the user's message")
    if len(songs) > limits.audio_files:
        raise UserError(f"{len(songs)} songs; at most {limits.audio_files} are taken at once")
    *history, prompt = _turns(said)
    if prompt.answer is not None or not prompt.question.replace(AUDIO_PLACEHOLDER, "").strip():
        raise UserError("the question is empty: the last message must be the user's, and ask something")
    files = tuple(_written(song, folder / f"song {place + 1}", limits) for place, song in enumerate(songs))
    return Question(prompt.question, files, tuple(song.segment for song in songs), tuple(history))


def without_folder(text: str, folder: Path) -> str:
    """A message without where the songs were, which the client has never heard of."""
    return text.replace(f"{folder}/", "")


def _said(message: Message) -> _Said:
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
            songs.append(part.input_audio)
            text += f"{AUDIO_PLACEHOLDER}\n"
    return _Said(message.role, text, tuple(songs))


def _written(audio: InputAudio, path: Path, limits: Limits) -> Path:
    """The song as a file."""
    if audio.format.lower() not in _FORMATS:
        raise UserError(f"input_audio.format {audio.format!r}: is none of {', '.join(_FORMATS)}")
    if len(audio.data) > math.ceil(limits.upload_bytes / 3) * 4:
        raise UserError(f"{path.name}: more than {limits.upload_bytes / 2**20:.3g} MiB")
    try:
        data = base64.b64decode(audio.data, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{path.name}: input_audio.data is no base64") from None
    path.write_bytes(data)
    check_song(path, limits)
    return path


def _turns(said: Sequence[_Said]) -> list[Turn]:
    """Questions with their answers. What the system says stands before the question that follows it."""
    turns: list[Turn] = []
    before = ""
    for one in said:
        if one.role == "assistant":
            if before or not turns or turns[-1].answer is not None:
                raise UserError("a message of the assistant that answers none of the user's")
            turns[-1] = Turn(turns[-1].question, one.text)
        elif one.role != "user":
            before += f"{one.text}\n"
        elif turns and turns[-1].answer is None:
            turns[-1] = Turn(f"{turns[-1].question}\n{before}{one.text}")
            before = ""
        else:
            turns.append(Turn(before + one.text))
            before = ""
    if not turns:
        raise UserError("no message of the user: ask something")
    return turns

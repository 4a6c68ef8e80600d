"""`mufun ask`: a question about songs, answered on the terminal as the answer comes."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from mufun_jax.errors import UserError
from mufun_jax.progress import progress_bar

if TYPE_CHECKING:
    from mufun_jax.generate.answer import Answer
    from mufun_jax.generate.chat import MuFun
    from mufun_jax.generate.constraint import Constraint
    from mufun_jax.generate.prompt import Heard
    from mufun_jax.generate.question import Long
    from mufun_jax.generate.sample import Sampling

_TAIL = 0.5  # seconds; such a tail is left out of every song
_LONG_HINT = " (--long window hears them in further passes, --long all at once)"
DType = Literal["float32", "bfloat16"]


def ask(
    songs: Sequence[str],
    question: str,
    checkpoint: str | Path,
    *,
    segment: tuple[float, float] | None = None,
    long: "Long" = "first",
    max_new_tokens: int = 64,
    sampling: "Sampling | None" = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    constraint: "Constraint | None" = None,
    dtype: DType = "bfloat16",
    quantize: Literal["int8"] | None = None,
    as_json: bool = False,
) -> None:
    """Prints the answer, piece by piece, and on standard error what of a song was not heard."""
    from mufun_jax.generate.question import make_question
    from mufun_jax.generate.sample import Sampling

    if not songs:
        raise UserError(f"no song given: write the audio file before the question {question!r}")
    prompt = make_question(question, list(songs), [segment] * len(songs), long=long)
    with loaded_model(checkpoint, dtype, quantize) as model:
        pieces = model.stream_answer(
            prompt,
            max_new_tokens=max_new_tokens,
            sampling=sampling or Sampling(),
            seed=seed,
            stop=stop,
            constraint=constraint,
        )
        answer = _print_pieces(pieces, quiet=as_json)
    tell_heard(answer.heard)
    if as_json:
        print(json.dumps(answer.to_json(), ensure_ascii=False))
    elif answer.finish == "length":
        print(f"note: cut off after {max_new_tokens} tokens; --max-new-tokens allows more", file=sys.stderr)
    elif answer.finish == "repetition":
        print("note: stopped, for it went round in circles; --repetition-penalty 1.2 may help", file=sys.stderr)


def _print_pieces(pieces: "Iterator[str | Answer]", *, quiet: bool) -> "Answer":
    """Prints what comes as it comes; returns the whole."""
    answer = None
    try:
        for piece in pieces:
            if not isinstance(piece, str):
                answer = piece
            elif not quiet:
                print(piece, end="", flush=True)
    finally:
        if not quiet:
            print(flush=True)
    assert answer is not None, "a stream ends with its answer"
    return answer


@contextmanager
def loaded_model(
    checkpoint: str | Path,
    dtype: DType,
    quantize: Literal["int8"] | None = None,
    quantize_cache: Literal["int8"] | None = None,
) -> "Iterator[MuFun]":
    """A model whose compiling is told on standard error, and kept for the next time."""
    from mufun_jax.generate.chat import MuFun
    from mufun_jax.generate.programs import keep_programs

    kept_in = keep_programs()
    messages = Console(stderr=True, highlight=False, markup=False)
    with progress_bar("Loading the model", "bytes", stays=False) as advance:
        model = MuFun.from_pretrained(
            checkpoint, dtype, quantize=quantize, quantize_cache=quantize_cache, advance=advance
        )
    status = messages.status("Listening")

    def on_compile(what: str, seconds: float | None) -> None:
        status.update("Listening" if seconds is not None else f"Compiling, once, for {what}")

    model.engine.on_compile, model.engine.kept_in = on_compile, kept_in
    with status:
        yield model


def tell_heard(heard: "Sequence[Heard]") -> None:
    """Warnings about songs, and what of them was not heard."""
    for one in heard:
        for warning in one.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if one.seconds_dropped:
            hint = _LONG_HINT if one.seconds_dropped > _TAIL else ""
            print(
                f"note: {one.file}: {one.seconds_used:g} s were heard, from {one.start:g} s on; "
                f"the {one.seconds_dropped:g} s after that were not{hint}",
                file=sys.stderr,
            )


def read_constraint(
    form: Literal["text", "json"], schema: str | None, regex: str | None, choices: Sequence[str]
) -> "Constraint | None":
    """The form of an answer from the command line's options. Raises UserError for two at once."""
    from mufun_jax.generate.constraint import Constraint

    given = [
        name for name, value in (("--format json", form == "json"), ("--regex", regex), ("--choice", choices)) if value
    ]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: an answer has one form; give one of them")
    if schema is not None and form != "json":
        raise UserError("--schema without --format json: a schema is for JSON")
    if form == "json":
        return Constraint.json(None if schema is None else _schema_text(schema))
    if regex is not None:
        return Constraint.regex(regex)
    return Constraint.choices(list(choices)) if choices else None


def _schema_text(schema: str) -> str:
    """A schema, or the file that it is in."""
    if schema.lstrip().startswith("{"):
        return schema
    try:
        return Path(schema).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--schema {schema}: {error.strerror}; give a file, or a schema that begins with {{") from None
    except UnicodeDecodeError:
        raise UserError(f"--schema {schema}: is no text in UTF-8") from None

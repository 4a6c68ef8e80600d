"""Experiment `context-boundary`: what is heard of songs that end around a window's border, and at the context's end.

Token counts are compared with a formula of their own; windows are encoded alone, among others, and with their
neighbours replaced; keys and values are weighed. Nothing is trained: any checkpoint will do, or random weights.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from mufun_jax.audio.wav import wav_bytes
from mufun_jax.audio.windows import DROPPED_TAIL
from mufun_jax.config import SAMPLE_RATE, EncoderConfig, ModelConfig
from mufun_jax.config_file import to_json
from mufun_jax.errors import ConfigError
from mufun_jax.evaluate.digests import model_digest
from mufun_jax.experiment.experiment import Defaults, Options, Tell, chosen_arms
from mufun_jax.experiment.finished import Finished
from mufun_jax.experiment.outcome import Check, Line, Outcome, ResultFigure, ResultTable
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.engine import bytes_of
from mufun_jax.generate.question import Question
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.model_folder import open_model_folder
from mufun_jax.weights.params import init_params

_PAPERS_LENGTHS = (389.0, 390.0, 391.0, 400.0)  # seconds, around the 390 s that the full model hears
# Relative to the largest token. The same window in a batch of another size is summed in another order.
_ROUNDING = 1e-4
_BESIDE = 64  # bytes that a prefix has beside its keys and values: how long it is
_PROMPT = f"{AUDIO_PLACEHOLDER}\nWhat is this?"


class Expected(NamedTuple):
    """Of a song of so many samples: windows and audio tokens, samples heard, and samples that are not."""

    windows: int
    tokens: int
    used: int
    dropped: int


class ContextBoundary:
    """See the module."""

    name = "context-boundary"
    question = "Is a song heard whole and without seams, wherever it ends?"
    arms: Mapping[str, str] = {
        "tokens": "every length around a window's border, and 389, 390, 391 and 400 s: what is heard and what is left",
        "seams": "the tokens of each window: alone, among others, and with its neighbours replaced",
        "memory": "keys and values of songs up to the longest, and beyond",
    }
    trains = False
    seeds = 1
    defaults = Defaults()

    def run(self, workdir: Path, options: Options, tell: Tell) -> Outcome:
        chosen = chosen_arms(self, options)
        tell(0, len(chosen), "the model")
        parts = {"tokens": count_tokens, "seams": compare_windows, "memory": weigh_prefixes}
        model: MuFun | None = None
        found, config = {}, model_config(options)
        setting = setting_of(options, config)
        for number, arm in enumerate(chosen):
            tell(number, len(chosen), arm)
            finished = Finished(workdir, arm, options.seeds[0], setting)
            measured = finished.read()
            if measured is None:
                model = model or load(options, config)
                measured = finished.write(parts[arm](model, options.quick))
            found[arm] = measured
        tell(len(chosen), len(chosen), "")
        checks = tuple(Check(**check) for part in found.values() for check in part["checks"])
        failed = [check for check in checks if not check.holds]
        return Outcome(
            experiment=self.name,
            question=self.question,
            answer=f"No: {failed[0].said}" if failed else f"Yes, as far as was looked: all {len(checks)} checks hold.",
            setting={
                "model": options.checkpoint or "random weights",
                "windows": f"{config.max_windows} of {config.encoder.window_seconds:g} s, {config.max_seconds:g} s",
                "audio tokens": f"{config.encoder.tokens_per_window} a window",
                "device": str(jax.devices()[0].device_kind),
            },
            checks=checks,
            tables=tuple(_tables(found, config.encoder)),
            figures=tuple(_figures(found)),
            measured=tuple({"arm": arm, **values} for arm, values in found.items()),
        )


def model_config(options: Options) -> ModelConfig:
    """The sizes of the model that is looked at."""
    if options.checkpoint is None:
        return options.run.model
    return open_model_folder(local_folder(options.checkpoint)).config.model


def setting_of(options: Options, config: ModelConfig) -> dict[str, Any]:
    """What makes two runs the same one: the sizes, and what a checkpoint's files hold."""
    digest = model_digest(local_folder(options.checkpoint)) if options.checkpoint is not None else None
    return {"model": to_json(config), "digest": digest, "tokenizer": options.run.tokenizer, "quick": options.quick}


def load(options: Options, config: ModelConfig) -> MuFun:
    """The checkpoint, or a model of these sizes with random weights, in float32: differences are not to be rounded."""
    if options.checkpoint is not None:
        return MuFun.from_pretrained(options.checkpoint, "float32")
    mesh, tokenizer = inference_mesh(), load_tokenizer(options.run.tokenizer)
    if tokenizer.size > config.decoder.vocab_size:
        raise ConfigError(f"the tokenizer has {tokenizer.size} tokens, the decoder {config.decoder.vocab_size}")
    params = init_params(config, mesh, options.seeds[0])
    return MuFun(MuFunModel(config), params, tokenizer, mesh)


# --- tokens ---------------------------------------------------------------------------------------------------------


def lengths(config: ModelConfig, quick: bool) -> list[int]:
    """Samples of the songs that are tried: around every border of a window, the context's end, and the paper's.

    At a border: a sample less, none more, one more, the tail that gets no window of its own, and one sample more than
    that. With `quick` only the first border and the last.
    """
    window = config.encoder.window_samples
    borders = (1, config.max_windows) if quick else range(1, config.max_windows + 1)
    around = {window * border + more for border in borders for more in (-1, 0, 1, DROPPED_TAIL, DROPPED_TAIL + 1)}
    end = window * config.max_windows
    around |= {end - SAMPLE_RATE, end + SAMPLE_RATE, end + 10 * SAMPLE_RATE}
    return sorted(around | {round(seconds * SAMPLE_RATE) for seconds in _PAPERS_LENGTHS})


def expected(samples: int, config: ModelConfig) -> Expected:
    """By the paper's words: windows follow one another, a tail of up to half a second is dropped, the first are heard.

    ceil((samples - 8000) / window), at least one and at most `max_windows`. A window is 10 tokens a second.
    """
    encoder = config.encoder
    windows = min(max(1, math.ceil((samples - DROPPED_TAIL) / encoder.window_samples)), config.max_windows)
    used = min(samples, windows * encoder.window_samples)
    return Expected(windows, round(10 * encoder.window_seconds * windows), used, samples - used)


def count_tokens(model: MuFun, quick: bool) -> dict[str, Any]:
    """What prompts about songs of all lengths hold, beside what is expected; and whether windows stay the same."""
    tried = lengths(model.config, quick)
    song = sound(max(tried))
    rows, wrong, changed = [], [], []
    whole = model.listener.prompt(Question(_PROMPT, (wav_bytes(song, SAMPLE_RATE, "song"),))).windows
    for samples in tried:
        prompt = model.listener.prompt(Question(_PROMPT, (wav_bytes(song[:samples], SAMPLE_RATE, "song"),)))
        wanted, heard = expected(samples, model.config), prompt.heard[0]
        slots = prompt.spliced.audio_slot[prompt.spliced.audio_slot >= 0]
        found = Expected(
            len(prompt.windows),
            len(slots),
            round(heard.seconds_used * SAMPLE_RATE),
            round(heard.seconds_dropped * SAMPLE_RATE),
        )
        in_order = np.array_equal(slots, np.arange(len(slots)))
        # Seconds are given in thousandths, which are 16 samples.
        close = all(abs(one - other) <= SAMPLE_RATE // 1000 for one, other in zip(found[2:], wanted[2:], strict=True))
        if found[:2] != wanted[:2] or not close or not in_order:
            wrong.append(f"{samples} samples: {_in_words(found)}, not {_in_words(wanted)}")
        full = samples // model.config.encoder.window_samples
        unchanged = np.array_equal(prompt.windows[:full], whole[: min(full, len(prompt.windows))])
        if not unchanged:
            changed.append(f"{samples} samples")
        rows.append([samples, *found])
    count = len(tried)
    return {
        "lengths": rows,
        "checks": [
            _check("token counts", wrong, f"as expected at all {count} lengths"),
            _check(
                "whole windows do not change with a song's end", changed, f"the same samples at all {count} lengths"
            ),
        ],
    }


def sound(samples: int) -> Float32[np.ndarray, " samples"]:
    """A rising tone in noise, the same up to any sample: no two windows are alike."""
    time = np.arange(samples) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(samples)
    # In 16 bits, as files have it: what is written and read again is the same.
    return (np.rint(2**15 * (0.3 * np.sin(2 * np.pi * (110 + 2 * time) * time) + 0.05 * noise)) / 2**15).astype(
        np.float32
    )


def _in_words(found: Expected) -> str:
    return f"{found.windows} windows, {found.tokens} tokens, {found.used} samples used, {found.dropped} dropped"


def _check(name: str, faults: Sequence[str], well: str) -> dict[str, Any]:
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return {"name": name, "holds": not faults, "said": f"{faults[0]}{more}" if faults else well}


# --- seams ----------------------------------------------------------------------------------------------------------


def compare_windows(model: MuFun, quick: bool) -> dict[str, Any]:
    """The largest differences of each window's tokens, relative to the largest token of all.

    `alone`: encoded by itself, not among the others. `neighbours`: with the windows at both sides replaced by noise in
    a batch of the same size, so that nothing may differ at all.
    """
    encoder = model.config.encoder
    count = min(3, model.config.max_windows) if quick else model.config.max_windows
    windows = sound(count * encoder.window_samples).reshape(count, -1)
    among = audio_tokens(model, windows)
    largest = float(np.abs(among).max())
    alone = np.concatenate([audio_tokens(model, window[None]) for window in windows])
    noise = 0.5 * np.random.default_rng(1).standard_normal(windows.shape).astype(np.float32)
    even = np.arange(count) % 2 == 0
    kept_even = audio_tokens(model, np.where(even[:, None], windows, noise))
    kept_odd = audio_tokens(model, np.where(even[:, None], noise, windows))
    replaced = np.where(even[:, None, None], kept_even, kept_odd)
    by_alone = (np.abs(alone - among).max((1, 2)) / largest).tolist()
    by_neighbours = (np.abs(replaced - among).max((1, 2)) / largest).tolist()
    off = [f"window {number + 1}: {x:.2g} of the largest" for number, x in enumerate(by_alone) if not x <= _ROUNDING]
    bled = [f"window {number + 1}: {x:.2g} of the largest" for number, x in enumerate(by_neighbours) if x != 0]
    return {
        "alone": by_alone,
        "neighbours": by_neighbours,
        "checks": [
            _check("a window alone is the window among others", off, f"to {max(by_alone):.1g}, in float32"),
            _check("a window does not depend on its neighbours", bled, f"not a bit differs in {count} windows"),
        ],
    }


def audio_tokens(model: MuFun, windows: Float32[np.ndarray, "W S"]) -> Float32[np.ndarray, "W A D"]:
    """The connector's tokens of windows that are encoded together."""
    with jax.set_mesh(model.mesh):
        tokens = jax.jit(_encode, static_argnames="model")(model.model, model.params, windows[None])
    return np.asarray(tokens, np.float32).reshape(len(windows), model.config.encoder.tokens_per_window, -1)


def _encode(model: MuFunModel, params: Any, samples: Float[Array, "R W S"]) -> Float[Array, "R slots D"]:
    return model.apply({"params": params}, samples, method=MuFunModel.encode_audio)  # pyright: ignore[reportReturnType]


# --- memory ---------------------------------------------------------------------------------------------------------


def weigh_prefixes(model: MuFun, quick: bool) -> dict[str, Any]:
    """Bytes of the keys and values of songs of one window up to the longest, and of songs longer than that."""
    config, window = model.config, model.config.encoder.window_samples
    most = config.max_windows
    counts = sorted({1, most} if quick else {1, 2, (most + 1) // 2, most})
    tried = [*(count * window for count in counts), most * window + SAMPLE_RATE, most * window + 10 * SAMPLE_RATE]
    song, rows = sound(max(tried)), []
    for samples in tried:
        prompt = model.listener.prompt(Question(_PROMPT, (wav_bytes(song[:samples], SAMPLE_RATE, "song"),)))
        model.engine.forget()
        prefix = model.engine.prefix(prompt)
        assert prefix is not None
        rows.append([samples, len(prompt.windows), prompt.split, prefix.slots, bytes_of(prefix)])
    longest = next(row[4] for row in rows if row[1] == most)
    more = [f"{row[0]} samples take {row[4]} bytes, not {longest}" for row in rows if row[4] > longest]
    decoder = config.decoder
    a_slot = 2 * decoder.layers * decoder.kv_heads * decoder.head_size * np.dtype(model.model.compute.dtype).itemsize
    odd = [
        f"{slots} slots take {size} bytes, not {slots * a_slot}"
        for *_, slots, size in rows
        if abs(size - slots * a_slot) > _BESIDE
    ]
    return {
        "prefixes": rows,
        "checks": [
            _check("a song beyond the context takes no more memory", more, f"{longest / 2**20:,.1f} MiB at most"),
            _check("memory grows by the slot", odd, f"{a_slot:,} bytes a slot"),
        ],
    }


# --- report ---------------------------------------------------------------------------------------------------------


def _tables(found: Mapping[str, Any], encoder: EncoderConfig) -> list[ResultTable]:
    tables = []
    if "tokens" in found:
        columns = ("seconds", "samples", "windows", "audio tokens", "s used", "s left out")
        rows = tuple(
            (samples / SAMPLE_RATE, samples, windows, tokens, used / SAMPLE_RATE, dropped / SAMPLE_RATE)
            for samples, windows, tokens, used, dropped in found["tokens"]["lengths"]
        )
        note = f"windows are {encoder.window_samples:,} samples; a tail of {DROPPED_TAIL:,} or fewer gets none"
        tables.append(ResultTable("What is heard", columns, rows, note, decimals=4))
    if "memory" in found:
        columns = ("seconds", "windows", "positions", "slots", "MiB")
        rows = tuple(
            (samples / SAMPLE_RATE, windows, positions, slots, size / 2**20)
            for samples, windows, positions, slots, size in found["memory"]["prefixes"]
        )
        tables.append(ResultTable("Keys and values of a song", columns, rows, "in float32"))
    return tables


def _figures(found: Mapping[str, Any]) -> list[ResultFigure]:
    figures = []
    if "tokens" in found:
        rows = found["tokens"]["lengths"]
        seconds = tuple(row[0] / SAMPLE_RATE for row in rows)
        line = Line("audio tokens", seconds, tuple(float(row[2]) for row in rows))
        figures.append(ResultFigure("Audio tokens by a song's length", "points", "seconds", "tokens", (line,)))
    if "seams" in found:
        places = tuple(range(1, 1 + len(found["seams"]["alone"])))
        lines = (
            Line("alone instead of among others", places, tuple(found["seams"]["alone"])),
            Line("neighbours replaced", places, tuple(found["seams"]["neighbours"])),
        )
        note = "largest difference of a token's value, relative to the largest value; float32"
        figures.append(ResultFigure("Windows at their seams", "points", "window", "difference", lines, note))
    return figures

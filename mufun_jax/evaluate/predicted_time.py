"""How long a model is predicted to take for a benchmark's questions, on machines that need not be there.

A roofline by formula, with `mufun plan`'s efficiencies: each program takes the longer of its FLOPs at the reached part
of the peak and its bytes at the reached part of the memory bandwidth. A song goes once through encoder and decoder into
the cache, alone; then all questions about it are read, and answered, as rows of one batch that share its keys and
values. Songs are padded to the engine's sizes. Machines with several devices hold the whole model on each, and share
the songs. Matrices in int8 are read as int8, and multiplied at bfloat16's peak. Not counted: reading and decoding
files, which other processes do meanwhile, and compiling. It is a model, not a measurement.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from mufun_jax.config import ModelConfig
from mufun_jax.errors import ConfigError
from mufun_jax.generate.engine import window_bucket
from mufun_jax.model.flops import decode_flops, forward_flops
from mufun_jax.plan.estimate import MATMUL_EFFICIENCY, MEMORY_EFFICIENCY
from mufun_jax.plan.inference import Weights, served_params
from mufun_jax.plan.memory import bytes_per_device
from mufun_jax.sharding.chips import CHIPS, PEAKS
from mufun_jax.sharding.mesh import inference_mesh

_CACHE_BYTES = 2  # of a key's or a value's number, bfloat16


@dataclass(frozen=True)
class Machine:
    """`devices` that hold the whole model each, in `weights`; FLOPs and bytes a second, and bytes, of one."""

    name: str
    devices: int
    peak_flops: float
    memory_bandwidth: float
    memory_bytes: float
    weights: Weights


# bfloat16 weights of the 8B model do not fit a v5e chip. Of the H100 (SXM) by its maker's data sheet.
V5E_8 = Machine("v5e-8", 8, CHIPS["v5e"].peak_flops, CHIPS["v5e"].memory_bandwidth, CHIPS["v5e"].memory_bytes, "int8")
H100 = Machine("H100", 1, PEAKS["H100"], 3.35e12, 80e9, "bfloat16")
MACHINES = (V5E_8, H100)


@dataclass(frozen=True)
class BenchmarkSet:
    """A set of a benchmark: so many questions, on songs of so many seconds."""

    name: str
    questions: int
    seconds: float


@dataclass(frozen=True)
class Workload:
    """What is assumed of all questions.

    `question_tokens` are those of a question with its options, `new_tokens` the most an answer may have, of which it
    has the share `decoded`: a letter and an option's text are 8 of 64. `beginning_tokens` stand before the song.
    """

    questions_a_song: float = 6.0
    question_tokens: int = 96
    beginning_tokens: int = 32
    new_tokens: int = 64
    decoded: float = 1 / 8


@dataclass(frozen=True)
class SetTime:
    """Predicted seconds for a set, on all devices: songs into the cache, questions read, answers decoded."""

    name: str
    questions: int
    songs: float
    encode_seconds: float
    read_seconds: float
    decode_seconds: float

    @property
    def seconds(self) -> float:
        return self.encode_seconds + self.read_seconds + self.decode_seconds


def read_seconds(audio: str) -> float:
    """The longest duration in a published description: 30.0 of "30 s" and of "10-30 s", 120.0 of "10 s, 2 min".

    Of "<10 min", which says no more, it is what is meant by it: up to 600.0.
    """
    found = re.findall(r"(\d+(?:\.\d+)?)\s*(s|min)\b", audio)
    assert found, audio
    return max(float(number) * (60 if unit == "min" else 1) for number, unit in found)


def predict_sets(
    model: ModelConfig, machine: Machine, sets: Sequence[BenchmarkSet], workload: Workload = Workload()
) -> list[SetTime]:
    """Predicted times of each set. Of a song longer than the model hears, its first part is heard.

    Raises:
        ConfigError: weights and the cache of the longest song do not fit a device; with both numbers.
    """
    served = served_params(model, machine.weights, inference_mesh())
    part_bytes = {part: bytes_per_device(served[part]) for part in ("encoder", "connector", "decoder")}
    table_bytes = 0 if model.decoder.tied_embeddings else bytes_per_device(served["decoder"]["embedding"])
    needed = sum(part_bytes.values()) + _cache_bytes(model, model.max_windows * model.encoder.tokens_per_window)
    if needed > machine.memory_bytes:
        raise ConfigError(
            f"{machine.name}: weights and the cache of a song are {needed / 1e9:.1f} GB, more than the "
            f"{machine.memory_bytes / 1e9:.1f} of a device; take int8 weights, a smaller model, or another machine"
        )
    # Rows look up what they need of an embedding table; every matrix is read whole.
    decoder_bytes = part_bytes["decoder"] - table_bytes
    song_bytes = decoder_bytes + part_bytes["encoder"] + part_bytes["connector"]
    return [_set_time(model, machine, each, workload, decoder_bytes, song_bytes) for each in sets]


def _set_time(
    model: ModelConfig,
    machine: Machine,
    one: BenchmarkSet,
    workload: Workload,
    decoder_bytes: int,
    song_bytes: int,
) -> SetTime:
    heard = min(one.seconds, model.max_seconds)
    windows = window_bucket(-(-int(heard * 1000) // int(model.encoder.window_seconds * 1000)), model.max_windows)
    song = windows * model.encoder.tokens_per_window + workload.beginning_tokens
    rows = min(workload.questions_a_song, one.questions)
    songs = one.questions / rows
    encode = _seconds(machine, forward_flops(model, 1, windows, song, targets=0).total, song_bytes)
    asked = workload.question_tokens
    reading = forward_flops(model, 1, 0, asked, targets=1).total + _attention_flops(model, asked, song)
    read = _seconds(machine, rows * reading, decoder_bytes + _cache_bytes(model, song))
    steps = workload.new_tokens * workload.decoded
    cached = _cache_bytes(model, song) + rows * _cache_bytes(model, asked + workload.new_tokens)
    step = _seconds(machine, rows * decode_flops(model, 1, song + asked).total, decoder_bytes + cached)
    each = songs / machine.devices
    return SetTime(one.name, one.questions, songs, each * encode, each * read, each * steps * step)


def _seconds(machine: Machine, flops: float, nbytes: float) -> float:
    return max(
        flops / (MATMUL_EFFICIENCY * machine.peak_flops), nbytes / (MEMORY_EFFICIENCY * machine.memory_bandwidth)
    )


def _attention_flops(model: ModelConfig, queries: int, keys: int) -> int:
    """Of one row's queries to all keys of its song, in all layers."""
    decoder = model.decoder
    return 4 * queries * keys * decoder.heads * decoder.head_size * decoder.layers


def _cache_bytes(model: ModelConfig, positions: int) -> int:
    decoder = model.decoder
    return 2 * decoder.layers * decoder.kv_heads * decoder.head_size * positions * _CACHE_BYTES


def predicted_table(times: Sequence[SetTime]) -> Table:
    """One line a set, and one for all of them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("set", no_wrap=True)
    for heading in ("questions", "songs", "encode s", "read s", "decode s", "all s"):
        table.add_column(heading, justify="right", no_wrap=True)
    sums = [
        sum(getattr(time, field) for time in times) for field in ("encode_seconds", "read_seconds", "decode_seconds")
    ]
    total = SetTime("all", sum(t.questions for t in times), sum(t.songs for t in times), *sums)
    for time in (*times, total):
        seconds = (time.encode_seconds, time.read_seconds, time.decode_seconds, time.seconds)
        table.add_row(time.name, str(time.questions), f"{time.songs:.0f}", *(f"{value:.1f}" for value in seconds))
    return table

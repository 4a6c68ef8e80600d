"""Audio files broken in every way that disks, networks, bad tools and ill will break them. Fixed by their seed.

    python -m tests.audio.mutations FOLDER FORMAT CASES

breaks a song of that format so many times, loads every result under limits of memory and time, and prints a line
before and after each. A process that dies has named its last case.
"""

import re
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from mufun_jax.audio import container
from mufun_jax.audio.waveform import load_waveform
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import AudioError
from tests.audio.songs import FORMATS, music

MEMORY = 1024**3  # bytes beyond what the imports take
PROCESSOR_SECONDS = 3.0  # a file; the songs last one second

# name: (where the header fields are: a pattern before them, or the start of the file; offset, bytes, byte order)
HEADER_FIELDS: dict[str, list[tuple[bytes, int, int, str]]] = {
    "wav": [
        (rb"RIFF", 4, 4, "little"),  # size of the file
        (rb"fmt ", 4, 4, "little"),  # of the chunk
        (rb"fmt ", 8, 2, "little"),  # encoding
        (rb"fmt ", 10, 2, "little"),  # channels
        (rb"fmt ", 12, 4, "little"),  # sample rate
        (rb"fmt ", 16, 4, "little"),  # bytes a second
        (rb"fmt ", 20, 2, "little"),  # bytes a frame
        (rb"fmt ", 22, 2, "little"),  # bits a sample
        (rb"data", 4, 4, "little"),  # size of the samples
    ],
    "aiff": [
        (rb"FORM", 4, 4, "big"),
        (rb"COMM", 4, 4, "big"),
        (rb"COMM", 8, 2, "big"),  # channels
        (rb"COMM", 10, 4, "big"),  # frames
        (rb"COMM", 14, 2, "big"),  # bits a sample
        (rb"COMM", 16, 2, "big"),  # sample rate: exponent
        (rb"COMM", 18, 4, "big"),  # and mantissa
        (rb"SSND", 4, 4, "big"),
        (rb"SSND", 8, 4, "big"),  # offset
        (rb"SSND", 12, 4, "big"),  # block size
    ],
    "flac": [
        (rb"fLaC", 4, 4, "big"),  # kind and size of the first block
        (rb"fLaC", 8, 2, "big"),  # smallest block
        (rb"fLaC", 10, 2, "big"),  # largest
        (rb"fLaC", 18, 4, "big"),  # sample rate, channels, bits
        (rb"fLaC", 20, 2, "big"),  # channels, bits, length
        (rb"fLaC", 22, 4, "big"),  # length
        (rb"\xff[\xf8\xf9]", 2, 2, "big"),  # block size, rate, channels and bits of a frame
        (rb"\xff[\xf8\xf9]", 4, 2, "big"),  # its number
    ],
    "mp3": [
        (rb"\xff[\xfa\xfb]", 0, 4, "big"),
        (rb"\xff[\xfa\xfb]", 2, 1, "big"),  # bit rate and sample rate
        (rb"\xff[\xfa\xfb]", 3, 1, "big"),  # channels
        (rb"(Xing|Info)", 4, 4, "big"),  # which of the following there are
        (rb"(Xing|Info)", 8, 4, "big"),  # frames
        (rb"(Xing|Info)", 12, 4, "big"),  # bytes
        (rb"(Xing|Info)", 16, 4, "big"),  # index
    ],
    "ogg": [
        (rb"OggS", 4, 2, "little"),  # version and kind of page
        (rb"OggS", 6, 8, "little"),  # granule position
        (rb"OggS", 14, 4, "little"),  # stream
        (rb"OggS", 18, 4, "little"),  # number
        (rb"OggS", 26, 1, "little"),  # segments
        (rb"OggS", 27, 1, "little"),  # bytes of the first
        (rb"\x01vorbis", 7, 4, "little"),  # version
        (rb"\x01vorbis", 11, 1, "little"),  # channels
        (rb"\x01vorbis", 12, 4, "little"),  # sample rate
        (rb"\x01vorbis", 28, 1, "little"),  # block sizes
        (rb"\x05vorbis", 7, 4, "little"),  # code books
    ],
    "opus": [
        (rb"OggS", 4, 2, "little"),
        (rb"OggS", 6, 8, "little"),
        (rb"OggS", 14, 4, "little"),
        (rb"OggS", 18, 4, "little"),
        (rb"OggS", 26, 1, "little"),
        (rb"OpusHead", 8, 1, "little"),  # version
        (rb"OpusHead", 9, 1, "little"),  # channels
        (rb"OpusHead", 10, 2, "little"),  # samples to skip
        (rb"OpusHead", 12, 4, "little"),  # sample rate
        (rb"OpusHead", 16, 2, "little"),  # gain
        (rb"OpusHead", 18, 1, "little"),  # mapping
        (rb"OpusTags", 8, 4, "little"),  # length of a name
    ],
}

Mutation = Callable[[bytes, bytes, str, np.random.Generator], bytes]


def _place(stream: bytes, random: np.random.Generator) -> int:
    """Anywhere, or near the start, where headers are."""
    return int(random.integers(0, len(stream) if random.random() < 0.6 else min(200, len(stream))))


def truncated(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    return stream[: max(1, _place(stream, random))]


def flipped(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    broken = bytearray(stream)
    for _ in range(int(random.integers(1, 20))):
        broken[_place(stream, random)] ^= 1 << int(random.integers(8))
    return bytes(broken)


def zeroed(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    at, size = _place(stream, random), int(2 ** random.uniform(0, 14))
    return (stream[:at] + bytes(size) + stream[at + size :])[: len(stream)]


def overwritten(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    at, size = _place(stream, random), int(2 ** random.uniform(0, 14))
    return (stream[:at] + random.bytes(size) + stream[at + size :])[: len(stream)]


def removed(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    at, size = _place(stream, random), int(2 ** random.uniform(0, 14))
    return stream[: max(1, at)] + stream[at + size :]


def duplicated(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    """A run of bytes, a chunk or a page often, is there several times."""
    pages = [found.start() for found in re.finditer(rb"OggS|fmt |data|COMM|SSND|fLaC|\xff\xfb", stream)] or [0]
    at = pages[int(random.integers(len(pages)))] if random.random() < 0.6 else _place(stream, random)
    size = int(2 ** random.uniform(2, 14))
    if random.random() < 0.5:  # up to where the next begins
        size = next((page - at for page in pages if page > at), size)
    return stream[: at + size] + stream[at : at + size] * int(random.integers(1, 4)) + stream[at + size :]


def spliced(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    return stream[: max(1, _place(stream, random))] + other[_place(other, random) :]


def prefixed(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    tag = b"ID3\x04\0\0" + random.integers(0, 128, 4, np.uint8).tobytes()
    return (tag if random.random() < 0.3 else b"") + random.bytes(int(random.integers(1, 3000))) + stream


def suffixed(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    return stream + random.bytes(int(random.integers(1, 3000)))


def lying(stream: bytes, other: bytes, name: str, random: np.random.Generator) -> bytes:
    """One or two header fields hold another number; an Ogg page then mostly has the checksum of what it says."""
    broken = bytearray(stream)
    fields = HEADER_FIELDS[name]
    for _ in range(int(random.integers(1, 3))):
        pattern, offset, size, order = fields[int(random.integers(len(fields)))]
        places = [found.start() + offset for found in re.finditer(pattern, stream, re.DOTALL)]
        at = places[0 if random.random() < 0.6 else int(random.integers(len(places)))] if places else 0
        top = 256**size
        values = [0, 1, 2, top // 2 - 1, top // 2, top - 1, top - 2, int.from_bytes(random.bytes(size), "big")]
        value = values[int(random.integers(len(values)))]
        broken[at : at + size] = value.to_bytes(size, order)  # pyright: ignore[reportArgumentType]
    if stream[:4] == b"OggS" and random.random() < 0.8:
        return _with_checksums(broken)
    return bytes(broken)


def _with_checksums(stream: bytearray) -> bytes:
    for found in re.finditer(rb"OggS", bytes(stream)):
        at = found.start()
        if at + 27 > len(stream):
            break
        lacing = stream[at + 27 : at + 27 + stream[at + 26]]
        stream[at + 22 : at + 26] = bytes(4)
        page = stream[at : at + 27 + len(lacing) + sum(lacing)]
        stream[at + 22 : at + 26] = struct.pack("<I", container._ogg_checksum(bytes(page)))
    return bytes(stream)


MUTATIONS: tuple[Mutation, ...] = (
    truncated,
    flipped,
    zeroed,
    overwritten,
    removed,
    duplicated,
    spliced,
    prefixed,
    suffixed,
    lying,
    lying,
)


def songs(folder: Path) -> dict[str, bytes]:
    """One second in every format."""
    streams = {}
    for name, (kind, subtype, rate) in FORMATS.items():
        soundfile.write(folder / name, music(1, rate), rate, format=kind, subtype=subtype)
        streams[name] = (folder / name).read_bytes()
    return streams


def mutated(streams: dict[str, bytes], name: str, case: int) -> tuple[str, bytes]:
    """What was done, and the broken file."""
    random = np.random.default_rng([case, *name.encode()])
    others = sorted(streams)
    other = streams[others[int(random.integers(len(others)))] if random.random() < 0.5 else name]
    stream, done = streams[name], []
    for step in range(1 if random.random() < 0.7 else 2):
        mutation = MUTATIONS[(case + 5 * step) % len(MUTATIONS)]
        stream = mutation(stream, other, name, random) or b"\0"
        done.append(mutation.__name__)
    return "+".join(done), stream


def loaded(path: Path, *, tolerate_damage: bool) -> tuple[np.ndarray | None, str]:
    """The samples if there are any, and the warnings or the error; AssertionError if either is not as promised."""
    try:
        waveform = load_waveform(path, tolerate_damage=tolerate_damage)
    except AudioError as error:
        said = str(error)
        assert said.startswith(str(path)), f"the error does not name the file: {said!r}"
        assert said.isprintable(), f"the error is no single line: {said!r}"
        return None, said
    samples = waveform.samples
    assert samples.dtype == np.float32 and samples.ndim == 1, f"{samples.dtype} {samples.shape}"
    assert np.isfinite(samples).all(), "samples that are no numbers"
    assert 0.1 * SAMPLE_RATE <= len(samples) <= 3600 * SAMPLE_RATE, f"{len(samples)} samples"
    assert abs(len(samples) - waveform.end * SAMPLE_RATE) <= 1, f"{len(samples)} samples, end {waveform.end}"
    assert waveform.start == 0 and waveform.end <= waveform.file_seconds, str(waveform)
    return samples, " ".join(waveform.warnings)


def check(path: Path) -> str:
    """How the file loads: "audio", "warned", "tolerated" or "refused"."""
    strict, said = loaded(path, tolerate_damage=False)
    samples, also_said = loaded(path, tolerate_damage=True)
    if strict is None:
        assert samples is None or also_said, "damage is tolerated in silence"
        return "refused" if samples is None else "tolerated"
    assert samples is not None, f"more is refused when damage is tolerated: {also_said}"
    assert bool(said) == bool(also_said), f"{said!r}, but when damage is tolerated {also_said!r}"
    assert said or np.array_equal(strict, samples), "other samples when damage is tolerated"
    return "warned" if said else "audio"


def main(folder: Path, name: str, cases: int) -> None:
    streams = songs(folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    path = folder / "mutated"
    for case in range(cases):
        done, stream = mutated(streams, name, case)
        path.write_bytes(stream)
        print(f"{name} {case} {done}:", end=" ", flush=True)
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)  # kills: a decoder in C hears no exception
        try:
            print(check(path), flush=True)
        except (AssertionError, MemoryError, ValueError, ArithmeticError, LookupError, OSError, RuntimeError) as error:
            print(f"FAILED {type(error).__name__} {error}", flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

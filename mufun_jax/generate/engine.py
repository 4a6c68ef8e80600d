"""The engine: batches of prompts through a few compiled programs, with what songs have in common computed once.

Prompts about one song are rows of one prefix. Rows, windows, lengths of text and numbers of tokens are rounded up to a
few sizes, so that after the first questions nothing is compiled any more. Prefixes stay in memory, the least recently
used ones go first.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from cachetools import LRUCache
from jax.sharding import Mesh
from jaxtyping import Float, Int

from mufun_jax.generate.decode import (
    Decoding,
    Prompts,
    Texts,
    advance,
    begin,
    option_log_probabilities,
    run_prefix,
    stack,
)
from mufun_jax.generate.programs import Arguments, KeptPrograms
from mufun_jax.generate.prompt import Prompt
from mufun_jax.generate.sample import Sampling
from mufun_jax.model.compute import compute_on
from mufun_jax.model.kv_cache import Prefix
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.weights.params import Params, layers_apart

MOST_ROWS = 32  # answered at once
_LEAST_TEXT, _LEAST_ANSWER, _LEAST_SCORED, _PREFIX_STEP = 32, 16, 8, 64  # positions

OnCompile = Callable[[str, float | None], None]  # what for; seconds that it took, None where it begins


@dataclass(frozen=True)
class Rows:
    """Prompts that are answered together: `groups` of as many rows each, one group a prefix."""

    groups: tuple[tuple[int, ...], ...]  # places of prompts in what was asked for; an empty one only fills
    size: int  # of a group with the rows that only fill it

    @property
    def places(self) -> list[int | None]:
        """The prompt in each row; None: there is none."""
        return [place for group in self.groups for place in (*group, *[None] * (self.size - len(group)))]


@dataclass(frozen=True)
class Draft:
    """An answer as far as it has come, `end_of_turn` included."""

    tokens: Int[np.ndarray, " T"]
    log_probabilities: Float[np.ndarray, " T"]
    done: bool


class Engine:
    """Answers prompts. `prefix_memory` is in bytes of the devices together; with `quantize_cache` prefixes are int8."""

    def __init__(
        self,
        model: MuFunModel,
        params: Params,
        mesh: Mesh,
        *,
        end_of_turn: int,
        padding: int,
        prefix_memory: int,
        quantize_cache: bool = False,
        on_compile: OnCompile = lambda what, seconds: None,
    ):
        compute = compute_on(mesh, model.compute)
        self.model, self.mesh = MuFunModel(model.config, compute), mesh
        self.params = params if compute.scan_layers else layers_apart(params, mesh.devices.flat[0])
        self.on_compile = on_compile
        self.kept_in: Path | None = None  # the folder of compiled programs
        self._end, self._padding = end_of_turn, padding
        self._quantize = quantize_cache
        self._prefixes: LRUCache[bytes, Prefix] = LRUCache(prefix_memory, getsizeof=bytes_of)
        self._programs: dict[Any, Callable[..., Any]] = {}  # by what is called, and its sizes

    @property
    def most_windows(self) -> int:
        """So many at once may be asked for: as many as the memory for prefixes holds."""
        return int(self._prefixes.maxsize) // self._bytes_of_prefix(self.model.config.encoder.tokens_per_window)

    def forget(self) -> None:
        """Frees the memory of all prefixes."""
        self._prefixes.clear()

    def prefix(self, prompt: Prompt) -> Prefix | None:
        """What the prompt has up to the end of its last song, computed or remembered; None for text alone."""
        if not prompt.split:
            return None
        found = self._prefixes.get(prompt.digest)
        if found is None:
            found = self._run_prefix(prompt)
            if bytes_of(found) <= self._prefixes.maxsize:
                self._prefixes[prompt.digest] = found
        return found

    def prefix_of(self, rows: Rows, prompts: Sequence[Prompt]) -> Prefix | None:
        """The prefixes of all groups as one."""
        each = [self.prefix(prompts[(group or rows.groups[0])[0]]) for group in rows.groups]
        found = [prefix for prefix in each if prefix is not None]
        if len(found) <= 1:
            return found[0] if found else None
        slots = max(prefix.slots for prefix in found)
        what, shape = f"{len(found)} songs at once", ("stack", len(found), slots)
        return self._call(what, shape, stack, {"slots": slots}, (), prefixes=tuple(found))

    def texts_of(self, tokens: Sequence[Sequence[int] | np.ndarray]) -> Texts:
        """Texts, padded to one of a few lengths."""
        length = power_of_two(max(map(len, tokens)), _LEAST_TEXT)
        padded = np.full((len(tokens), length), self._padding, np.int32)
        for row, text in enumerate(tokens):
            padded[row, : len(text)] = text
        return Texts(padded, np.array([len(text) for text in tokens], np.int32))

    def decode(
        self,
        rows: Rows,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        *,
        max_new_tokens: int,
        sampling: Sampling,
        chunk: Callable[[int], int],
        allowed: Callable[[list[Draft]], Int[np.ndarray, "R words"]] | None = None,
    ) -> Iterator[list[Draft]]:
        """Answers of all rows, again and again, each time by `chunk(tokens so far)` tokens longer.

        What is sent back (a list of bool) ends rows. With `allowed`, it says before each token which ones a row may
        draw; `chunk` must be 1.
        """
        places = rows.places
        prefix = self.prefix_of(rows, prompts)
        nothing = np.array([self._padding], np.int32)
        texts = self.texts_of([nothing if place is None else prompts[place].text for place in places])
        filling = np.array([place is None for place in places])
        row_seeds = np.array([0 if place is None else seeds[place] for place in places], np.uint32)
        most = power_of_two(max_new_tokens, _LEAST_ANSWER)
        shape = (len(rows.groups), len(places), prefix.slots if prefix else 0, texts.tokens.shape[1], most)
        with jax.set_mesh(self.mesh):
            decoding = self._call(
                f"questions of {shape[3]} tokens",
                ("begin", *shape),
                begin,
                {"model": self.model, "most": most},
                (),
                params=self.params,
                prefix=prefix,
                texts=texts,
                seeds=row_seeds,
                filling=filling,
            )
            while True:
                drafts = drafts_of(decoding)
                if all(draft.done for draft in drafts) or len(drafts[0].tokens) >= max_new_tokens:
                    return
                until = np.int32(min(max_new_tokens, len(drafts[0].tokens) + chunk(len(drafts[0].tokens))))
                mask = None if allowed is None else allowed(drafts)
                decoding = self._call(
                    f"answers of {most} tokens",
                    ("advance", *shape, sampling.kind, mask is not None),
                    advance,
                    {"model": self.model, "kind": sampling.kind},
                    ("decoding",),
                    params=self.params,
                    prefix=prefix,
                    decoding=decoding,
                    numbers=sampling.numbers,
                    end_of_turn=np.int32(self._end),
                    until=until,
                    allowed=mask,
                )
                ended = yield drafts_of(decoding)
                if ended is not None:
                    decoding = decoding.replace(done=decoding.done | np.array(ended))

    def logits(self, prompt: Prompt) -> Float[np.ndarray, " V"]:
        """Of the token after a prompt, float32."""
        prefix, texts = self.prefix(prompt), self.texts_of([prompt.text])
        nothing = np.zeros(1, np.uint32)
        with jax.set_mesh(self.mesh):
            decoding = begin(self.model, self.params, prefix, texts, nothing, nothing.astype(bool), _LEAST_ANSWER)
        return np.asarray(decoding.logits)[0]

    def score(
        self, prompts: Sequence[Prompt], answers: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[Float[np.ndarray, " T"]]]:
        """Log-probabilities in nats of the tokens of each answer after its prompt, of which each has several."""
        found: dict[int, list[Float[np.ndarray, " T"]]] = {}
        for rows in self.rows_of(prompts):
            places = [rows.groups[0][0] if place is None else place for place in rows.places]
            texts = self.texts_of([prompts[place].text for place in places])
            options = power_of_two(max(len(answers[place]) for place in places))
            most = power_of_two(max(len(answer) for place in places for answer in answers[place]), _LEAST_SCORED)
            tokens = np.full((options, len(places), most), self._padding, np.int32)
            counts = np.zeros((options, len(places)), np.int32)
            for row, place in enumerate(places):
                for option, answer in enumerate(answers[place]):
                    tokens[option, row, : len(answer)] = answer
                    counts[option, row] = len(answer)
            prefix = self.prefix_of(rows, prompts)
            shape = (len(rows.groups), *tokens.shape, prefix.slots if prefix else 0, texts.tokens.shape[1])
            with jax.set_mesh(self.mesh):
                scored = self._call(
                    f"{options} answers of {most} tokens",
                    ("score", *shape),
                    option_log_probabilities,
                    {"model": self.model},
                    (),
                    params=self.params,
                    prefix=prefix,
                    texts=texts,
                    options=tokens,
                    counts=counts,
                )
            scored = np.asarray(scored, np.float64)
            for row, place in enumerate(rows.places):
                if place is not None:
                    found[place] = [scored[at, row, : len(answer)] for at, answer in enumerate(answers[place])]
        return [found[place] for place in range(len(prompts))]

    def rows_of(self, prompts: Sequence[Prompt]) -> list[Rows]:
        """Prompts by their prefixes, those of like numbers of questions together; as many as memory holds at once."""
        by_prefix: dict[bytes, list[int]] = {}
        for place, prompt in enumerate(prompts):
            by_prefix.setdefault(prompt.digest if prompt.split else b"", []).append(place)
        pieces: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        for key, places in by_prefix.items():
            for start in range(0, len(places), MOST_ROWS):
                piece = tuple(places[start : start + MOST_ROWS])
                slots = self.slots_of(prompts[piece[0]]) if key else 0
                pieces.setdefault((power_of_two(len(piece)), slots), []).append(piece)
        found = []
        for (size, slots), groups in pieces.items():
            at_once = MOST_ROWS // size
            if slots:
                at_once = max(1, min(at_once, int(self._prefixes.maxsize) // self._bytes_of_prefix(slots)))
            at_once = 1 << (at_once.bit_length() - 1)
            for start in range(0, len(groups), at_once):
                some = groups[start : start + at_once]
                found.append(Rows((*some, *[()] * (power_of_two(len(some)) - len(some))), size))
        return found

    def slots_of(self, prompt: Prompt) -> int:
        """How many slots its prefix is given."""
        encoder = self.model.config.encoder
        text = prompt.split - len(prompt.windows) * encoder.tokens_per_window
        audio = window_bucket(len(prompt.windows), self.model.config.max_windows) * encoder.tokens_per_window
        return -(-(text + audio) // _PREFIX_STEP) * _PREFIX_STEP

    def _run_prefix(self, prompt: Prompt) -> Prefix:
        slots = self.slots_of(prompt)
        encoder = self.model.config.encoder
        tokens = np.full((1, slots), self._padding, np.int32)
        audio_slot = np.full((1, slots), -1, np.int32)
        tokens[0, : prompt.split] = prompt.spliced.tokens[: prompt.split]
        audio_slot[0, : prompt.split] = prompt.spliced.audio_slot[: prompt.split]
        windows = window_bucket(len(prompt.windows), self.model.config.max_windows)
        samples = np.zeros((1, windows, encoder.window_samples), np.float32)
        samples[0, : len(prompt.windows)] = prompt.windows
        arrays = Prompts(tokens, audio_slot, np.array([prompt.split], np.int32), samples)
        with jax.set_mesh(self.mesh):
            return self._call(
                f"songs of {windows * encoder.window_seconds:g} s",
                ("prefix", windows, slots),
                run_prefix,
                {"model": self.model, "slots": slots, "quantize": self._quantize},
                (),
                params=self.params,
                prompts=arrays,
            )

    def _bytes_of_prefix(self, slots: int) -> int:
        decoder = self.model.config.decoder
        width = 1 + 4 / decoder.head_size if self._quantize else np.dtype(self.model.compute.dtype).itemsize
        return int(2 * decoder.layers * decoder.kv_heads * slots * decoder.head_size * width)

    def _call(self, what: str, shape: Any, function: Any, fixed: Arguments, donated: tuple[str, ...], **arguments: Any):
        """Calls a compiled program. Where it is neither at hand nor on the disk, says that it is compiled.

        Of several devices none is kept: what is passed on need not lie there as it did the first time.
        """
        program = self._programs.get(shape)
        kept = KeptPrograms(self.kept_in, self.mesh.devices.flat[0]) if self.kept_in and self.mesh.size == 1 else None
        if program is None and kept is not None:
            program = kept.read(function, fixed, arguments)
        if program is not None:
            self._programs[shape] = program
            return program(**arguments)
        self.on_compile(what, None)
        started = time.perf_counter()
        program = kept.compile(function, fixed, arguments, donated) if kept else partial(function, **fixed)
        found = program(**arguments)
        self._programs[shape] = program
        self.on_compile(what, time.perf_counter() - started)
        return found


def drafts_of(decoding: Decoding) -> list[Draft]:
    """What the devices have so far."""
    tokens, log_probabilities, step, done = jax.device_get(
        (decoding.tokens, decoding.log_probabilities, decoding.step, decoding.done)
    )
    return [
        Draft(row[:step], scores[:step], bool(ended))
        for row, scores, ended in zip(tokens, log_probabilities, done, strict=True)
    ]


def bytes_of(tree: Any) -> int:
    """Of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def power_of_two(count: int, least: int = 1) -> int:
    """The next one that is at least `count` and `least`."""
    return max(least, 1 << (count - 1).bit_length()) if count else least


def window_bucket(windows: int, most: int) -> int:
    """What a number of windows is padded to, so that few are compiled: a power of two, or a multiple of `most`."""
    return min(power_of_two(windows), -(-windows // most) * most)

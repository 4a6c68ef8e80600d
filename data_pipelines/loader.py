"""The loader: examples in their order, packed, this process's rows of each batch read, decoded and encoded by Grain.

order ── blocks of examples ── packed by size alone ── rows ── batches      (every process the same, no audio)
                                                        └─ this process's rows: read, decode, encode ─ batch
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from grain.multiprocessing import MultiprocessingOptions
from jaxtyping import Float32, Int32

from data_pipelines.encode import Budget, ExampleEncoder
from data_pipelines.pack import build_row, pack_rows
from data_pipelines.stage_data import StageData, measure_stage
from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.errors import ConfigError, UserError
from mufun_jax.text.tokenizer import Tokenizer

_BLOCK = 512  # examples packed together; more packs tighter
_PREFETCHED_BATCHES = 2  # of each worker
_ENDLESS = 2**40  # batches; more than any run takes

PackedRow = list[tuple[int, int]]  # of each example its set and its number there


@dataclass(frozen=True)
class Place:
    """Where a batch begins: row `row` of block `block`. All of a loader's state; the same on every process."""

    batch: int = 0
    block: int = 0
    row: int = 0


class Rows:
    """The rows of a stage from a place on, in order; no end where the order has none."""

    def __init__(self, data: StageData, place: Place):
        self._data = data
        self._sizes = [measured.sizes for measured in data.sets]
        self._block = place.block
        self._waiting = deque(self._pack(place.block)[place.row :])
        self._row = place.row

    def take(self, count: int) -> list[PackedRow]:
        """The next rows; fewer where the order ends."""
        rows: list[PackedRow] = []
        while len(rows) < count:
            if self._waiting:
                rows.append(self._waiting.popleft())
                self._row += 1
                continue
            packed = self._pack(self._block + 1)
            if not packed:
                break
            self._block, self._row, self._waiting = self._block + 1, 0, deque(packed)
        return rows

    def place(self, batch: int) -> Place:
        """Where the next row is, as the beginning of a batch."""
        return Place(batch, self._block, self._row)

    def _pack(self, block: int) -> list[PackedRow]:
        drawn = self._data.order[range(block * _BLOCK, (block + 1) * _BLOCK)]
        if not len(drawn):
            return []
        sizes = np.stack([self._sizes[chosen][example] for chosen, example in drawn.tolist()])
        examples = drawn.tolist()
        return [[(examples[i][0], examples[i][1]) for i in row] for row in pack_rows(sizes, self._data.encoder.budget)]


@dataclass(frozen=True)
class _PlannedBatch:
    """The rows of a batch that this process reads, what is known of all its rows, and where the next one begins."""

    rows: list[PackedRow]
    examples: Int32[np.ndarray, " R"]
    dropped_windows: Int32[np.ndarray, " R"]
    seconds: Float32[np.ndarray, " R"]
    next: Place


class _BatchPlan(grain.MapDataset[_PlannedBatch]):
    """Batches by their number from `start` on, with the rows of each that this process reads.

    Numbers are asked for in rising order: going back begins again at `start`.

    Where the order has an end, the last batch is filled with empty rows.
    """

    def __init__(self, data: StageData, start: Place, total: int, read: Sequence[int]):
        super().__init__()
        self._data, self._start, self._rows_a_batch, self._read = data, start, total, read
        self._rows: Rows | None = None
        self._next = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        with self._lock:
            if self._rows is None or index < self._next:
                self._rows, self._next = Rows(self._data, self._start), 0
            rows: list[PackedRow] = []
            while self._next <= index:
                rows = self._rows.take(self._rows_a_batch)
                self._next += 1
            after = self._rows.place(self._start.batch + index + 1)
        rows += [[]] * (self._rows_a_batch - len(rows))
        sets = self._data.sets
        dropped = [sum(int(sets[chosen].dropped_windows[example]) for chosen, example in row) for row in rows]
        heard = [sum(float(sets[chosen].seconds[example]) for chosen, example in row) for row in rows]
        return _PlannedBatch(
            rows=[rows[row] for row in self._read],
            examples=np.array([len(row) for row in rows], np.int32),
            dropped_windows=np.array(dropped, np.int32),
            seconds=np.array(heard, np.float32),
            next=after,
        )

    def __getstate__(self) -> dict[str, Any]:  # a lock is not sent to workers
        return self.__dict__ | {"_lock": None, "_rows": None, "_next": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._lock = threading.Lock()


@dataclass(frozen=True)
class _BuildBatch:
    """Reads, decodes and encodes the examples of rows, and puts the rows together."""

    data: StageData

    def __call__(self, planned: _PlannedBatch) -> dict[str, Any]:
        encoder = self.data.encoder
        rows = []
        for row in planned.rows:
            examples = [self.data.sets[chosen].load(number, encoder) for chosen, number in row]
            rows.append(
                build_row(
                    examples,
                    encoder.budget,
                    encoder.encoder.window_samples,
                    encoder.encoder.tokens_per_window,
                    [chosen for chosen, _ in row],
                )
            )
        return {
            "batch": jax.tree.map(lambda *fields: np.stack(fields), *rows),
            "examples": planned.examples,
            "dropped_windows": planned.dropped_windows,
            "audio_seconds": planned.seconds,
            "next": np.array(astuple(planned.next)),
        }


class Batches(Iterator[dict[str, Any]]):
    """The rows `read` of each batch of `total`. `get_state` says where the next batch begins; `set_state` goes there.

    Each element is a dict: `batch`, with the rows `read` only; and of all rows, the same on every process, `examples`,
    `dropped_windows` and `audio_seconds`, each [total]. The state does not depend on processes or workers:
    another number of them goes on with the same batches.
    """

    def __init__(self, data: StageData, total: int, read: Sequence[int], workers: int):
        self._data, self._rows_a_batch, self._read, self._workers = data, total, read, workers
        self._place = Place()
        self._elements: grain.DatasetIterator | None = None  # nothing is read before the first batch is asked for

    def __next__(self) -> dict[str, Any]:
        if self._elements is None:
            self._elements = self._start()
        try:
            element = next(self._elements)
        except RuntimeError as error:
            if "orker process" not in str(error):
                raise
            raise UserError(
                "a loader worker died (was memory short?); lower loader_workers and run again: it goes on from the "
                "last checkpoint"
            ) from None
        self._place = Place(*element.pop("next").tolist())
        return element

    def get_state(self) -> dict[str, Any]:
        return asdict(self._place) | {"data": self._data.digest}

    def set_state(self, state: dict[str, Any]) -> None:
        """Raises ConfigError where the state is of other data: examples would be repeated and lost."""
        if state["data"] != self._data.digest:
            raise ConfigError(
                "the sets of this stage, or the tokenizer, are not those of the checkpoint: go on with the same ones, "
                "or begin in another --workdir"
            )
        self.close()
        self._place = Place(state["batch"], state["block"], state["row"])

    def close(self) -> None:
        """Ends the threads and processes that read ahead."""
        if self._elements is not None:
            self._elements.close()
            self._elements = None

    def _start(self) -> grain.DatasetIterator:
        plan = _BatchPlan(self._data, self._place, self._rows_a_batch, self._read)
        built = plan.map(_BuildBatch(self._data))
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED_BATCHES)
        elements = built.to_iter_dataset(options)
        if self._workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain's workers get its flags, which only absl's own main parses
            elements = elements.mp_prefetch(
                MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=_PREFETCHED_BATCHES)
            )
        return iter(elements)


def load_batches(run: RunConfig, stage: StageConfig, data: StageData, rows: Sequence[int] | None = None) -> Batches:
    """The given rows of each global batch of a stage: those that this process's devices hold; without, all."""
    return Batches(data, stage.rows, range(stage.rows) if rows is None else rows, run.loader_workers)


def open_stage(
    run: RunConfig,
    stage: StageConfig,
    tokenizer: Tokenizer,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> StageData:
    """The data of a stage, measured. Raises as `measure_stage` does."""
    budget = Budget(stage.positions, stage.windows, stage.targets)
    encoder = ExampleEncoder(tokenizer, run.model.encoder, budget, stage.template, stage.longest_audio)
    return measure_stage(run, stage, encoder, seed, progress)


def count_steps(stage: StageConfig, data: StageData) -> int:
    """Steps that the epochs of a stage take: all rows of the order, the last batch filled with empty ones."""
    assert stage.epochs is not None, "endless draws have no number of steps"
    rows, found = Rows(data, Place()), 0
    while taken := len(rows.take(stage.rows)):
        found += taken
    return -(-found // stage.rows)

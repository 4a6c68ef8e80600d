"""The data path: what a host prepares, reads, packs and feeds, beside the reference's path and what chips need.

    make bench                                  (or python -m tests.benchmarks.data --folder DIR --rounds 3)

Wanted: on two cores 1,000 seconds of audio a second, and 5 times the reference's path; `mufun prepare` at 150 a core;
under 2 % of a step spent waiting; 90 % of all positions used.
"""

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from data_pipelines.loader import Batches, Place, Rows, open_stage
from data_pipelines.stage_data import StageData
from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.model.presets import preset
from mufun_jax.text.tokenizer import load_tokenizer
from tests.benchmarks import songs
from tests.benchmarks.host_demand import HOST_CHIPS, HOST_CORES, inputs, row_seconds
from tests.qwen_tokenizer import write_qwen_tokenizer

CORES = 2
SONGS, COPIES = 4, 3
CLIPS = 6_000
STEP_SECONDS, STEPS = 0.5, 40
AHEAD, BATCHES = 16, 16  # batches that may have been read while others were measured; those that are timed

LEAST_FEED, LEAST_OVER_REFERENCE, LEAST_PREPARE, MOST_WAIT, LEAST_USED = 1000, 5, 150, 0.02, 0.9


@dataclass(frozen=True)
class Speed:
    """Seconds of audio per second that passed, and per second of a core's work (0: not known)."""

    wall: float
    core: float
    start: float = 0.0  # seconds that pass before the first audio


def median_speed(speeds: list[Speed]) -> Speed:
    return Speed(*(statistics.median(values) for values in zip(*map(astuple, speeds), strict=True)))


def measured_speed(work: Callable[[], float], processes: int) -> Speed:
    """`work` returns the seconds of audio it went through. What other processes did is known of one process only."""
    wall, cores = time.perf_counter(), core_seconds()
    audio = work()
    wall, cores = time.perf_counter() - wall, core_seconds() - cores
    return Speed(audio / wall, audio / cores if processes == 1 else 0.0)


def core_seconds() -> float:
    """Of this process and the finished ones that it started."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# --- what is measured ---------------------------------------------------------------------------------------------


def prepare_songs(folder: Path) -> None:
    """Songs, manifests, and three prepared sets: whole songs, parts of 30 and 60 s, and clips of 4 to 60 s."""
    # Here, not above: the loader's processes import this file, and need no Beam.
    from data_pipelines.prepare import PrepareOptions, prepare
    from data_pipelines.source import manifest_source

    songs.write_songs(folder / "songs", SONGS, COPIES)
    rng = np.random.default_rng(0)
    whole = range(SONGS)
    heard: dict[str, list[tuple[Path, tuple[float, float] | None]]] = {
        kind: [(songs.song(folder / "songs", n, kind), None) for n in range(SONGS * (1 + COPIES))]
        for kind in ("ogg", "flac")
    }
    heard |= {f"{kind}_two": heard[kind][:2] for kind in ("ogg", "flac")}
    heard["songs"] = heard["ogg"][:SONGS]
    heard["parts"] = [(heard["ogg"][n][0], part) for n in whole for part in ((0, 60), (60, 120), (120, 150))]
    heard["clips"] = []
    for n in range(CLIPS):
        seconds = rng.uniform(4, 60)
        start = rng.uniform(0, songs.SECONDS - seconds)
        heard["clips"].append((heard["ogg"][n % SONGS][0], (round(start, 3), round(start + seconds, 3))))
    for name, files in heard.items():
        songs.write_manifest(folder / "songs" / f"{name}.json", files)
    prepare(
        [manifest_source(folder / "songs" / f"{name}.json") for name in ("songs", "parts", "clips")],
        folder / "data",
        PrepareOptions(),
    )


def open_rows(folder: Path, mixture: dict[str, float], positions: int, windows: int) -> StageData:
    """A stage of 8 B sizes; its tokenizer is Qwen's in kind, with a small vocabulary."""
    stage = StageConfig(
        mixture, rows=1, positions=positions, windows=windows, targets=positions // 4, longest_audio=390.0, steps=1
    )
    run = RunConfig(
        preset("mufun_8b"), tokenizer="", data=str(folder / "data"), stages={"one": stage}, curriculum=("one",)
    )
    return open_stage(run, stage, load_tokenizer(folder / "tokenizer"), 0)


class Feed:
    """The loader of a stage, kept open over rounds."""

    def __init__(self, data: StageData, rows: int, workers: int):
        self._batches = Batches(data, rows, range(rows), workers)
        self._workers = workers
        self._window_seconds = data.encoder.encoder.window_seconds

    def speed(self, batches: int) -> Speed:
        for _ in range(AHEAD):
            next(self._batches)
        return measured_speed(lambda: sum(self._take() for _ in range(batches)), max(1, self._workers))

    def _take(self) -> float:
        """Seconds of audio in the next batch: all windows of these sets are full."""
        return float(next(self._batches)["batch"].window_mask.sum()) * self._window_seconds

    def waits(self) -> tuple[list[float], float, float]:
        """Seconds waited before each step, share of positions used, seconds of audio a step."""
        next(self._batches)
        time.sleep(4 * STEP_SECONDS)  # while a step is compiled
        used, audio, waited = [], [], []
        for _ in range(STEPS):
            asked = time.perf_counter()
            batch = next(self._batches)["batch"]
            waited.append(time.perf_counter() - asked)
            used.append((batch.segment_ids > 0).mean())
            audio.append(batch.window_mask.sum() * self._window_seconds)
            time.sleep(STEP_SECONDS)  # the chips' work, of which the host does nothing
        return waited, float(np.mean(used)), float(np.mean(audio))


def measure_feed(folder: Path, rounds: int) -> dict[tuple[str, int], Speed]:
    """Host work of both kinds of rows and of the reference, on one process and on two, alternating."""
    # Here, not above: the loader's processes import this file, and need no PyTorch.
    from tests.benchmarks.reference_path import WINDOW_SECONDS, extract, limit_threads

    long, short = open_rows(folder, {"songs": 1, "parts": 1}, 4096, 13), open_rows(folder, {"parts": 1}, 768, 2)
    files = [songs.song(folder / "songs", n, suffix) for n in range(2) for suffix in ("ogg", "flac")]
    limit_threads()
    extract(files[0])
    works: dict[tuple[str, int], Callable[[], Speed]] = {}
    with get_context("spawn").Pool(CORES, limit_threads) as pool:
        pool.map(extract, files, 1)
        for processes in (1, CORES):
            mapped: Callable[..., Any] = map if processes == 1 else lambda work, many: pool.map(work, many, 1)
            works["reference", processes] = lambda mapped=mapped, processes=processes: measured_speed(
                lambda: WINDOW_SECONDS * sum(mapped(extract, files)), processes
            )
            workers = 0 if processes == 1 else processes
            for name, data, rows in (("4,096 x 13", long, 4), ("768 x 2", short, 16)):
                feed = Feed(data, rows, workers)
                works[name, processes] = lambda feed=feed: feed.speed(BATCHES)
        return in_rounds(works, rounds)


def measure_prepare(folder: Path, rounds: int) -> dict[tuple[str, int], Speed]:
    works = {
        (kind, workers): lambda kind=kind, workers=workers: prepare_speed(folder, kind, workers)
        for kind in ("ogg", "flac")
        for workers in (1, CORES)
    }
    return in_rounds(works, rounds)


def prepare_speed(folder: Path, kind: str, workers: int) -> Speed:
    """Of `mufun prepare` once it runs: what all songs take beyond what two take, a shard a song."""
    from data_pipelines.prepare import PrepareOptions, prepare
    from data_pipelines.source import manifest_source

    took: list[tuple[float, float, float]] = []
    for manifest in (f"{kind}_two", kind):
        source = manifest_source(folder / "songs" / f"{manifest}.json")
        wall, cores = time.perf_counter(), core_seconds()
        with tempfile.TemporaryDirectory(dir=folder) as out:
            report = prepare([source], out, PrepareOptions(shard_bytes=1, workers=workers))[source.name]
        took.append((report["hours"] * 3600, time.perf_counter() - wall, core_seconds() - cores))
    (few, short, short_cores), (all_songs, long, long_cores) = took
    speed = (all_songs - few) / (long - short)
    core = (all_songs - few) / (long_cores - short_cores) if workers == 1 else 0.0
    return Speed(speed, core, short - few / speed)


def in_rounds(works: dict[tuple[str, int], Callable[[], Speed]], rounds: int) -> dict[tuple[str, int], Speed]:
    found = {what: [] for what in works}
    for _ in range(rounds):
        for what, work in works.items():
            found[what].append(work())
    return {what: median_speed(speeds) for what, speeds in found.items()}


# --- tables -------------------------------------------------------------------------------------------------------


class Report:
    """Prints tables, and remembers what missed its target."""

    def __init__(self) -> None:
        self._console = Console(width=120)
        self.missed: list[str] = []

    def table(self, title: str, columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
        made = list(rows)  # measures, some of them
        load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        table = Table(title=f"{title} (load {load})", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for row in made:
            table.add_row(*row)
        self._console.print(table)

    def check(self, value: float, what: str, *, least: float = 0, most: float = float("inf")) -> None:
        if not least <= value <= most:
            self.missed.append(f"{what}: {value:.3g}, wanted {f'at least {least:g}' if least else f'at most {most:g}'}")


def show_feed(report: Report, speeds: dict[tuple[str, int], Speed]) -> None:
    reference = speeds["reference", CORES].wall
    report.table(
        "Host work from prepared audio, in multiples of real time: read, decode, window, tokenise, pack, batch",
        ("", "1 process", "a core second", f"{CORES} processes", "of reference"),
        (
            (name, f"{one.wall:,.0f}", f"{one.core:,.0f}", f"{two.wall:,.0f}", f"{two.wall / reference:.1f}")
            for name in dict.fromkeys(name for name, _ in speeds)
            for one, two in ((speeds[name, 1], speeds[name, CORES]),)
        ),
    )


def show_prepare(report: Report, speeds: dict[tuple[str, int], Speed]) -> None:
    report.table(
        f"mufun prepare, in multiples of real time: synthesised songs of {songs.SECONDS} s, 44.1 kHz, stereo",
        ("", "1 worker", "a core second", "start", f"{CORES} workers", "start"),
        (
            (
                kind,
                f"{one.wall:,.0f}",
                f"{one.core:,.0f}",
                f"{one.start:.1f} s",
                f"{two.wall:,.0f}",
                f"{two.start:.1f} s",
            )
            for kind in dict.fromkeys(kind for kind, _ in speeds)
            for one, two in ((speeds[kind, 1], speeds[kind, CORES]),)
        ),
    )


def show_waits(report: Report, folder: Path) -> None:
    data = open_rows(folder, {"songs": 1, "parts": 1}, 4096, 13)

    def rows() -> Iterator[tuple[str, ...]]:
        for count in (HOST_CHIPS, HOST_CHIPS // 2):
            waited, used, audio = Feed(data, count, CORES).waits()
            share = sum(waited) / (sum(waited) + STEPS * STEP_SECONDS)
            needed = count * row_seconds(4096, 13) / HOST_CHIPS
            yield (
                str(count),
                f"{share:.2%}",
                f"{max(waited) * 1e3:,.0f} ms",
                f"{used:.1%}",
                f"{audio / STEP_SECONDS:,.0f}",
                f"{needed:.2f} s",
            )
            if (
                count == HOST_CHIPS // 2
            ):  # more than the chips take in that time already; twice that is for CORES to show
                report.check(share, f"share of a step of {count} rows spent waiting", most=MOST_WAIT)

    title = f"Waiting for the loader, {STEPS} steps of {STEP_SECONDS} s, 4,096 x 13, {CORES} processes"
    columns = (
        "rows",
        "waiting",
        "longest",
        "positions used",
        "x real time needed",
        f"{HOST_CHIPS} chips need for them",
    )
    report.table(title, columns, rows())


def show_packing(report: Report, folder: Path) -> None:
    started = time.perf_counter()
    data = open_rows(folder, {"clips": 1}, 4096, 13)
    measured = time.perf_counter() - started
    sizes = data.sets[0].sizes
    drawn: list[tuple[float, float, int]] = []
    for _ in range(3):
        started = time.perf_counter()
        packed = Rows(data, Place()).take(CLIPS // 5)
        seconds = time.perf_counter() - started
        examples = sum(map(len, packed))
        used = sum(int(sizes[number, 0]) for row in packed for _, number in row) / (len(packed) * 4096)
        drawn.append((seconds / examples * 1e6, used, examples))
    cost, used, examples = sorted(drawn)[1]
    text = (sizes[:, 0] - sizes[:, 1] * data.encoder.encoder.tokens_per_window).mean()
    columns = ("examples", "text positions", "windows", "positions used", "us to measure", "us to draw and pack")
    row = (
        f"{examples:,}",
        f"{text:.0f}",
        f"{sizes[:, 1].mean():.2f}",
        f"{used:.1%}",
        f"{measured / len(sizes) * 1e6:.0f}",
        f"{cost:.1f}",
    )
    report.table("Packing clips of 4 to 60 s, 4,096 x 13, an example's mean", columns, iter([row]))
    report.check(used, "positions used", least=LEAST_USED)


def show_demand(report: Report, speeds: dict[tuple[str, int], Speed]) -> None:
    report.table(
        "What a v5p host must feed, predicted",
        ("rows", "a row of a chip", "rows a second", "x real time", "a core does", f"of {HOST_CORES} cores"),
        (
            (
                name,
                f"{seconds:.3f} s",
                f"{rate:.2f}",
                f"{audio * rate:,.0f}",
                f"{core:,.0f}",
                f"{audio * rate / core / HOST_CORES:.2%}",
            )
            for name, positions, windows in (("4,096 x 13", 4096, 13), ("768 x 2", 768, 2))
            for seconds in (row_seconds(positions, windows),)
            for rate, audio, core in ((HOST_CHIPS / seconds, 30 * windows, speeds[name, 1].core),)
        ),
    )
    print(inputs())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())  # as the command does: what libraries log is no news
    report = Report()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="mufun-bench-") as name:
        folder = Path(name)
        write_qwen_tokenizer(folder / "tokenizer")
        prepare_songs(folder)
        show_packing(report, folder)
        show_waits(report, folder)
        feed = measure_feed(folder, arguments.rounds)
        show_feed(report, feed)
        prepared = measure_prepare(folder, arguments.rounds)
        show_prepare(report, prepared)
        show_demand(report, feed)
    for rows in ("4,096 x 13", "768 x 2"):
        two, reference = feed[rows, CORES].wall, feed["reference", CORES].wall
        report.check(two, f"{rows}, x real time", least=LEAST_FEED)
        report.check(two / reference, f"{rows}, times the reference", least=LEAST_OVER_REFERENCE)
    for kind in ("ogg", "flac"):
        report.check(prepared[kind, 1].core, f"mufun prepare of {kind}, x real time a core", least=LEAST_PREPARE)
    if report.missed:
        sys.exit("\n".join(report.missed))


if __name__ == "__main__":
    main()

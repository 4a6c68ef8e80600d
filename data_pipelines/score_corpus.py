"""A corpus of short rendered tunes with exact labels, in the training set's format.

Tunes of music21's public-domain collections are drawn by seed, split by tune, transposed, played by one of
eight instruments at one of four tempos, and asked about. The same config gives the same bytes on any number
of workers. With the default config: 4,000 notes and 1,000 passages in under a minute on two cores.

    render_score_corpus(Path("corpus"), ScoreCorpusConfig(), workers=2)
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TypeVar

from data_pipelines.score_pieces import COLLECTIONS, Piece, TuneFilter, read_pieces, read_tune_texts
from data_pipelines.score_plan import ScoreCorpusConfig, ScorePlan, make_plan
from data_pipelines.score_questions import label_histogram
from data_pipelines.score_render import (
    SAMPLE_RATE,
    Clip,
    check_soundfont,
    check_synthesiser,
    soundfont_path,
    write_clips,
)
from mufun_jax.errors import UserError

FORMAT_VERSION = 2
_TUNES_A_BATCH = 64
_CLIPS_A_BATCH = 32

In = TypeVar("In")
Out = TypeVar("Out")
Mapped = Callable[[Callable[[In], Out], Sequence[In]], Iterator[Out]]


def render_score_corpus(
    out: Path,
    config: ScoreCorpusConfig,
    *,
    workers: int = 2,
    held_out_soundfont: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """Write the corpus to the folder `out`, whole or not at all, and return its report.

    Held-out clips are played by `held_out_soundfont` if one is given, a General MIDI soundfont whose sounds no
    training clip has; else by the one that all are played by. `progress` is called with pieces read plus clips
    rendered, and with both in all. An `out` that holds this corpus already is left as it is. Raises UserError if
    a package is not installed, `held_out_soundfont` is none, or `out` holds something else. A script that asks
    for more than one worker needs the usual `if __name__ == "__main__"`: each worker imports it again.
    """
    out = Path(out)
    _check_counts(config, workers)
    check_synthesiser()
    if held_out_soundfont is not None:
        check_soundfont(held_out_soundfont)
    soundfonts = {"train": soundfont_path(), "heldout": held_out_soundfont or soundfont_path()}
    sounds = {split: _soundfont(path) for split, path in soundfonts.items()}
    if (report := _read_report(out, config, sounds)) is not None:
        return report
    aside = out.parent / f".{out.name}.partial-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)  # of a killed run with this process's number
    aside.mkdir(parents=True)
    try:
        with _worker_map(workers) as mapped:
            total = config.pieces + config.clips
            train, held_out, left_out = _draw_pieces(config, mapped, lambda read: progress(read, total))
            plan = make_plan(config, train, held_out)
            assert len(plan.clips) == config.clips
            for folder in {Path(clip.path).parent for clip in plan.clips}:
                (aside / folder).mkdir(parents=True)
            seconds = _render(
                plan.clips, aside, soundfonts, mapped, lambda rendered: progress(config.pieces + rendered, total)
            )
        report = _report(config, plan, seconds, sounds, [train, held_out], left_out)
        for name, entries in plan.entries.items():
            _write_json(aside / f"{name}.json", entries)
        _write_json(aside / "report.json", report)
        if out.is_dir():  # empty, as _read_report saw
            out.rmdir()
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return report


def _check_counts(config: ScoreCorpusConfig, workers: int) -> None:
    for name, count in asdict(config).items():
        if name.endswith("structures") and count < 0:
            raise UserError(f"{name} must be 0 or more, not {count}")
        if name != "seed" and not name.endswith("structures") and count <= 0:
            raise UserError(f"{name} must be more than 0, not {count}")
    if config.held_out_share >= 1 or config.pieces * config.held_out_share < 1:
        raise UserError(f"held_out_share {config.held_out_share} of pieces {config.pieces} leaves a split empty")
    if workers < 1:
        raise UserError(f"workers must be 1 or more, not {workers}")


def _read_report(out: Path, config: ScoreCorpusConfig, soundfonts: dict[str, dict[str, str]]) -> dict | None:
    """The report of the corpus that `out` holds, None where there is nothing yet."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    path = out / "report.json"
    if path.is_file():
        report = json.loads(path.read_text(encoding="utf-8"))
        wanted = {"format_version": FORMAT_VERSION, "config": asdict(config), "soundfonts": soundfonts}
        if isinstance(report, dict) and all(report.get(key) == value for key, value in wanted.items()):
            return report
    raise UserError(f"{out} holds something else than this score corpus: choose another folder, or delete it")


@contextmanager
def _worker_map(workers: int) -> Iterator[Mapped]:
    """`map`, in this process for one worker, else over a pool; the results come in order either way."""
    if workers == 1:
        yield map
        return
    # Not fork: the parent may hold JAX's threads and their locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield pool.map
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else leaving would first render all that waits
            raise


def _batches(items: Sequence, size: int) -> list[list]:
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def _draw_pieces(
    config: ScoreCorpusConfig, mapped: Mapped, progress: Callable[[int], None]
) -> tuple[list[Piece], list[Piece], Counter[str]]:
    """Training pieces, held-out pieces, and how many tunes were left out, by reason.

    Duplicates go before the split, so a tune and its copy cannot stand on both sides.
    """
    texts = read_tune_texts()
    random.Random(f"{config.seed}/pieces").shuffle(texts)
    pieces: list[Piece] = []
    left_out: Counter[str] = Counter()
    new_tunes = TuneFilter()
    # About as many at a time as are still missing: a small corpus need not read four thousand tunes.
    while texts and len(pieces) < config.pieces:
        wanted = 2 * (config.pieces - len(pieces))
        tunes, texts = texts[:wanted], texts[wanted:]
        for found in chain.from_iterable(mapped(read_pieces, _batches(tunes, _TUNES_A_BATCH))):
            if isinstance(found, str):
                left_out[found] += 1
            elif not new_tunes.is_new(found.intervals):
                left_out["duplicate of another tune"] += 1
            else:
                pieces.append(found)
                progress(min(len(pieces), config.pieces))
    # All that were read count as read, so more than were asked for may be left.
    del pieces[config.pieces :]
    if len(pieces) < config.pieces:
        raise UserError(f"pieces is {config.pieces}, but the collections hold {len(pieces)} usable tunes")
    held_out = round(config.pieces * config.held_out_share)
    return pieces[held_out:], pieces[:held_out], left_out


def _render(
    clips: list[Clip],
    folder: Path,
    soundfonts: dict[str, Path],
    mapped: Mapped,
    progress: Callable[[int], None],
) -> dict[str, float]:
    """Render every clip by the soundfont of its split; path to length in seconds."""
    seconds: dict[str, float] = {}
    for split, soundfont in soundfonts.items():
        batches = _batches([clip for clip in clips if _split_of(clip.path) == split], _CLIPS_A_BATCH)
        rendered = mapped(partial(write_clips, str(folder), str(soundfont)), batches)
        for batch, lengths in zip(batches, rendered, strict=True):
            seconds.update(zip((clip.path for clip in batch), lengths, strict=True))
            progress(len(seconds))
    return seconds


def _split_of(path: str) -> str:
    return path.rsplit("/", 1)[-1].split("-")[0]


def _soundfont(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _report(
    config: ScoreCorpusConfig,
    plan: ScorePlan,
    seconds: dict[str, float],
    soundfonts: dict[str, dict[str, str]],
    splits: list[list[Piece]],
    left_out: Counter[str],
) -> dict:
    """Counts, hours and label histograms; nothing that changes from run to run."""
    clips: dict[str, dict] = {}
    for path, length in seconds.items():
        kind = path.split("/")[1]
        group = clips.setdefault(f"{_split_of(path)} {kind}", {"clips": 0, "hours": 0.0})
        group["clips"] += 1
        group["hours"] += length / 3600
    for group in clips.values():
        group["hours"] = round(group["hours"], 4)
    kept = {
        name: dict(sorted(Counter(piece.name.split("/")[0] for piece in pieces).items()))
        for name, pieces in zip(("train", "heldout"), splits, strict=True)
    }
    return {
        "format_version": FORMAT_VERSION,
        "config": asdict(config),
        "sample_rate": SAMPLE_RATE,
        "clips": clips,
        "hours": round(sum(seconds.values()) / 3600, 4),
        "entries": {name: len(entries) for name, entries in plan.entries.items()},
        "labels": {name: label_histogram(entries) for name, entries in plan.entries.items()},
        "pieces": kept,
        "tunes_left_out": dict(sorted(left_out.items())),
        "collections": COLLECTIONS,
        "licence": "The tunes are out of copyright by age; music21 distributes the transcriptions with their "
        "encoders' permission. Soundfonts are not part of the corpus; TimGM6mb is GPL-2.",
        "soundfonts": soundfonts,
        # Another version of one of these may change some bytes.
        "versions": {name: version(name) for name in ("music21", "tinysoundfont", "soxr", "soundfile")},
    }


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

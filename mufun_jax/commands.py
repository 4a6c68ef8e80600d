"""What the subcommands do: the library behind progress bars, its results printed. `demo` is all of them in a row."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from mufun_jax.ask_command import ask
from mufun_jax.errors import UserError
from mufun_jax.progress import progress_bar

if TYPE_CHECKING:  # the library is imported by the commands that need it: `mufun --help` need not wait for JAX
    from data_pipelines.prepare import PrepareOptions
    from data_pipelines.score_corpus import ScoreCorpusConfig
    from mufun_jax.config import RunConfig
    from mufun_jax.evaluate.free_answers import MetricScore
    from mufun_jax.evaluate.run import TaskScore
    from mufun_jax.sharding.processes import Processes
    from mufun_jax.train.profiler import Steps

_output = Console(highlight=False, markup=False)
SCORE_CORPUS = "score-corpus"  # as a source of `mufun prepare`
QUICK_CORPUS = {
    "pieces": 60,
    "train_notes": 24,
    "train_excerpts": 6,
    "train_songs": 2,
    "held_out_notes": 8,
    "held_out_excerpts": 6,
    "held_out_songs": 2,
}


def prepare(
    sources: Sequence[str],
    out: str,
    options: "PrepareOptions",
    *,
    tfds: Sequence[str] = (),
    tfds_dir: str | None = None,
    corpus: "ScoreCorpusConfig | None" = None,
    held_out_soundfont: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Prepares sources as sets below `out`, prints a table of them, and returns their reports by name.

    `score-corpus` among the sources is rendered to `out`/score_corpus first, as `corpus` says, what is held out of
    it by `held_out_soundfont` if there is one.
    """
    from data_pipelines.prepare import prepare
    from data_pipelines.report import prepared_table
    from data_pipelines.source import data_set_source, find_source, score_corpus_sources

    found = []
    for name in sources:
        if name == SCORE_CORPUS:
            found += score_corpus_sources(_render_score_corpus(out, options, corpus, held_out_soundfont))
        else:
            found.append(find_source(name, options.seed))
    for name in tfds:
        from data_pipelines.sources.tfds_export import export_tfds

        folder = Path(_on_disk(out, "--tfds")) / "tfds" / name
        with Console(stderr=True).status(f"Reading {name} through tensorflow_datasets"):
            export_tfds(name, (), folder, Path(tfds_dir) if tfds_dir else None)
        found.append(data_set_source(name, folder, options.seed))
    with progress_bar("Preparing", "bytes") as advance:
        reports = prepare(found, out, options, progress=advance)
    _output.print(prepared_table(reports))
    return reports


def _render_score_corpus(
    out: str, options: "PrepareOptions", corpus: "ScoreCorpusConfig | None", held_out_soundfont: Path | None
) -> Path:
    from data_pipelines.score_corpus import ScoreCorpusConfig, render_score_corpus

    folder = Path(_on_disk(out, SCORE_CORPUS)) / "score_corpus"
    with progress_bar("Rendering music") as advance:
        config = corpus or ScoreCorpusConfig(seed=options.seed)
        report = render_score_corpus(
            folder, config, workers=options.workers, held_out_soundfont=held_out_soundfont, progress=advance
        )
    clips = sum(kind["clips"] for kind in report["clips"].values())
    _output.print(f"{clips} clips, {60 * report['hours']:.0f} minutes, in {folder}", soft_wrap=True)
    return folder


def _on_disk(out: str, what: str) -> str:
    if "://" in out:
        raise UserError(f"--out {out}: {what} writes audio files there first; give a folder of this machine")
    return out


def train(
    run: "RunConfig", workdir: Path, processes: "Processes | None" = None, profile: "Steps | None" = None
) -> Path:
    """Trains the curriculum, on several processes where `processes` says so; returns the model folder."""
    from mufun_jax.config_file import to_json
    from mufun_jax.sharding.mesh import simulate_devices
    from mufun_jax.sharding.processes import Processes, check_same, is_first, joined
    from mufun_jax.train.curriculum import train_curriculum
    from mufun_jax.train_view import TrainView

    simulate_devices(run.mesh)
    with joined(processes or Processes()):
        check_same(json.dumps(to_json(run)), "config")
        with TrainView(hidden=not is_first()) as view:
            folder = train_curriculum(run, workdir, view.callbacks, profile=profile)
        if is_first():
            _output.print(f"The model is in {folder}", soft_wrap=True)
    return folder


def evaluate(
    benchmark: Path,
    checkpoint: str | Path,
    out: Path | None = None,
    tasks: list[str] | None = None,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
    *,
    metrics: Sequence[str] = (),
) -> "dict[str, TaskScore | MetricScore]":
    """Scores a model on a manifest, prints the tables, and writes the scores as JSON.

    Tasks named in `metrics`, as TASK=METRIC each, are measured so; of the others an answer is right or wrong.
    """
    from mufun_jax.evaluate.free_answers import measure_tasks, read_metrics
    from mufun_jax.evaluate.report import metric_table, score_table, write_scores
    from mufun_jax.evaluate.run import evaluate
    from mufun_jax.evaluate.tasks import load_items
    from mufun_jax.generate.chat import MuFun

    items = load_items(benchmark, tasks)
    chosen = read_metrics(metrics, items)
    exact = {task: of_task for task, of_task in items.items() if task not in chosen}
    with progress_bar("Loading the model", "bytes", stays=False) as advance:
        model = MuFun.from_pretrained(checkpoint, dtype, advance=advance)
    scores, measured = {}, {}
    if exact:
        with progress_bar("Evaluating") as advance:
            scores = evaluate(model, exact, progress=advance)
        _output.print(score_table(scores))
    if chosen:
        with progress_bar("Measuring") as advance:
            measured = measure_tasks(model, items, chosen, progress=advance)
        _output.print(metric_table(measured))
    if out is not None:
        write_scores(out, scores, measured)
        _output.print(f"The scores are in {out}", soft_wrap=True)
    return scores | measured


def show(parts: Iterable[Any]) -> None:
    for part in parts:
        _output.print(part, soft_wrap=isinstance(part, str))


def convert_from_hf(
    folders: Sequence[str],
    whisper: str | None,
    qwen3: str | None,
    connector: str | None,
    *,
    taps: str | None,
    seed: int,
    dtype: str | None,
    max_shard_size: str,
    overwrite: bool,
) -> None:
    """Writes a model folder from PyTorch's, and says what it wrote."""
    from mufun_jax.convert.from_torch import from_hf, join

    *sources, target = folders
    options: dict[str, Any] = {
        "taps": _layers(taps),
        "dtype": dtype,
        "shard_bytes": read_bytes(max_shard_size, "--max-shard-size"),
        "overwrite": overwrite,
    }
    if bool(whisper) != bool(qwen3):
        raise UserError("--whisper and --qwen3 go together: a model needs both")
    if len(sources) != (0 if whisper else 1):
        wanted = "only DST goes with --whisper and --qwen3" if whisper else "give SRC and DST"
        raise UserError(f"{len(folders)} folders given: {wanted}")
    if connector and not whisper:
        raise UserError("--connector goes with --whisper and --qwen3; a whole model has its own")
    with progress_bar("Converting", "bytes") as advance:
        if whisper and qwen3:
            written = join(whisper, qwen3, Path(target), connector=connector, seed=seed, advance=advance, **options)
        else:
            written = from_hf(sources[0], Path(target), advance=advance, **options)
    _say_written(written)


def convert_to_hf(
    source: str,
    target: Path,
    layout: Literal["released", "transformers"],
    scores: Path | None,
    license: str | None,
    *,
    dtype: str | None,
    max_shard_size: str,
    overwrite: bool,
) -> None:
    """Writes a model for PyTorch, and says what it wrote."""
    from mufun_jax.convert.to_torch import to_hf
    from mufun_jax.weights.json_object import read_json_object

    measured = read_json_object(scores) if scores is not None else None
    with progress_bar("Converting", "bytes") as advance:
        written = to_hf(
            source,
            target,
            layout=layout,
            dtype=dtype,
            shard_bytes=read_bytes(max_shard_size, "--max-shard-size"),
            overwrite=overwrite,
            scores=measured,
            license=license,
            advance=advance,
        )
    _say_written(written)


def convert_inspect(source: str, taps: str | None, *, tensors: bool, as_json: bool) -> None:
    """Prints what lies in a folder of weights."""
    from mufun_jax.convert.inspect import inspect_folder
    from mufun_jax.convert.report import inspection_tables

    found = inspect_folder(source, _layers(taps))
    if as_json:
        print(json.dumps(found.to_json()))
        return
    show(inspection_tables(found, tensors=tensors))


def _say_written(written: Any) -> None:
    _output.print(f"{written.tensors} tensors, {written.nbytes / 1e9:.2f} GB, in {written.folder}", soft_wrap=True)


def _layers(text: str | None) -> tuple[int, ...] | None:
    """`0,7,15,32` as numbers."""
    if text is None:
        return None
    if len(text) > 1000 or not all(word.strip().isdecimal() for word in text.split(",")):
        raise UserError(f"--taps {text}: write the layers as numbers with commas, for instance 0,7,15,32")
    return tuple(int(word) for word in text.split(","))


def read_steps(text: str | None) -> "Steps | None":
    """`10:15` of --profile: the steps 11 to 15."""
    from mufun_jax.train.profiler import Steps

    if text is None:
        return None
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"--profile {text}: write FIRST:LAST, for instance 10:15")
    return Steps(int(first), int(last))


def read_bytes(text: str, option: str) -> int:
    """`5GB`, `500MB` or a number of bytes, of an option of the command line."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size < 1:
        raise UserError(f"{option} {text}: write a size, for instance 5GB or 500MB")
    return size


def demo(workdir: Path, *, seed: int, quick: bool, workers: int) -> None:
    """Prepares, trains, evaluates and asks, by the functions above."""
    from data_pipelines.prepare import PrepareOptions
    from data_pipelines.score_corpus import ScoreCorpusConfig
    from mufun_jax.config_file import load_run_config

    data = workdir / "data"
    _output.rule("1. Music from scores")
    corpus = ScoreCorpusConfig(seed=seed, **(QUICK_CORPUS if quick else {}))
    prepare([SCORE_CORPUS], str(data), PrepareOptions(seed=seed, workers=workers), corpus=corpus)
    corpus_folder = data / "score_corpus"

    _output.rule("2. Six stages of training")
    config = Path(str(files("configs") / "nano.py"))
    run = load_run_config(config, [f"data={data}"])
    if quick:
        run = replace(run, stages={name: replace(stage, steps=2) for name, stage in run.stages.items()})
    checkpoint = train(run, workdir)

    _output.rule("3. What it heard in pieces it was never trained on")
    evaluate(corpus_folder / "heldout.json", checkpoint, workdir / "scores.json")

    _output.rule("4. Two questions about a song")
    song = min((corpus_folder / "audio" / "songs").glob("heldout-*.flac"))
    for question in ("Which instrument is this?", "What key is this in?"):
        _output.print(f'$ mufun ask {song} "{question}" --checkpoint {checkpoint}', soft_wrap=True)
        ask([str(song)], question, checkpoint)
    _output.print("Ask your own:", f'  mufun ask SONG "question" --checkpoint {checkpoint}', sep="\n", soft_wrap=True)

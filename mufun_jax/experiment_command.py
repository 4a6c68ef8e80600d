"""`mufun experiment`: one experiment, its progress, its table and its page."""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mufun_jax.commands import QUICK_CORPUS, SCORE_CORPUS, prepare, show
from mufun_jax.errors import UserError
from mufun_jax.progress import progress_bar

if TYPE_CHECKING:  # `mufun --help` need not wait for JAX
    from mufun_jax.config import RunConfig
    from mufun_jax.experiment.experiment import Experiment, Options

_QUICK_MORE = 2  # of each kind that an experiment adds to the quick corpus


def experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which; `list` prints them all.")],
    workdir: Annotated[
        Path | None,
        typer.Option(help="Everything is written here; run again, it goes on.", show_default="runs/experiments/NAME"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Config file that every arm begins from.", show_default="configs/nano.py, or nano_long.py"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change one key of the config for all arms. Repeatable.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Model sizes in the place of the config's.")] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option("--checkpoint", "--model", help="Look at this model, where nothing is trained. Repeatable."),
    ] = None,
    whisper: Annotated[
        str | None, typer.Option(help="Begin with this Whisper's encoder, frozen: a file, a folder, or `base`.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared sets.", show_default="the score corpus, rendered in WORKDIR/data")
    ] = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(help="Manifest that models are scored on.", show_default="what DATA/score_corpus holds out"),
    ] = None,
    held_out_soundfont: Annotated[
        Path | None, typer.Option(help="Soundfont (.sf2) that plays what models are scored on, and nothing else.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Ask so many questions of each task, from all over it.", min=1)
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task of it. Repeatable.")] = None,
    replace_: Annotated[
        list[str] | None,
        typer.Option("--replace", metavar="OLD=NEW", help="Of open-data: an arm with this set for that. Repeatable."),
    ] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm. Repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(help="So many; each experiment has its own number.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smallest sizes: checks the thread, shows nothing.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that render and prepare.", min=1)] = 2,
) -> None:
    """Run one of the paper's experiments, or a check its readers asked for: a table, and WORKDIR/report.html.

    Exit code 1 where a check does not hold. Run again, arms and seeds that are done are not done again.

    `mufun experiment list`

    `mufun experiment context-boundary --checkpoint runs/demo/checkpoint`
    """
    from mufun_jax.experiment.experiment import Options
    from mufun_jax.experiment.open_data import OpenData
    from mufun_jax.experiment.registry import EXPERIMENTS, find_experiment
    from mufun_jax.report.written import check_libraries

    if name == "list":
        show(line for each in EXPERIMENTS.values() for line in _described(each))
        return
    found = find_experiment(name)
    if checkpoint and found.trains:
        raise UserError(f"{name} trains its models; begin them from one with --set initial_model={checkpoint[0]}")
    check_libraries("the report")
    workdir = workdir or Path("runs/experiments") / name
    run, encoder = _run_config(config, found.defaults.config, set_ or [], preset), None
    if whisper is not None:
        from mufun_jax.experiment.whisper_start import whisper_file, with_whisper

        if not found.trains:
            raise UserError(f"{name} trains nothing: --whisper is where training begins")
        encoder = whisper_file(whisper, workdir)
        run = with_whisper(run, encoder)
    if replace_ and found.name != OpenData.name:
        raise UserError(f"--replace is of {OpenData.name}: {found.name} replaces nothing")
    if held_out_soundfont is not None and (data is not None or not found.trains):
        raise UserError(
            "--held-out-soundfont is for the score corpus that is rendered here: it does not go with --data"
        )
    if found.trains:
        more = found.defaults.corpus
        run = replace(run, data=str(data or _rendered(workdir, more, quick, workers, held_out_soundfont)))
        benchmark = benchmark or Path(run.data) / "score_corpus" / found.defaults.benchmark
    options = Options(
        run,
        tuple(range(run.seed, run.seed + (seeds or found.seeds))),
        checkpoints=tuple(checkpoint or ()),
        benchmark=benchmark,
        limit=limit,
        tasks=tuple(task or ()),
        arms=tuple(arm or ()),
        quick=quick,
        whisper=encoder,
        replacements=tuple(replace_ or ()),
    )
    if not _perform(found, workdir, options):
        sys.exit(1)


def _perform(found: "Experiment", workdir: Path, options: "Options") -> bool:
    """Runs an experiment and writes its report; whether all its checks hold."""
    from mufun_jax.experiment.outcome_folder import write_outcome
    from mufun_jax.experiment.outcome_table import outcome_tables
    from mufun_jax.sharding.mesh import simulate_devices

    simulate_devices(options.run.mesh)
    with progress_bar(found.name) as advance:
        outcome = found.run(workdir, options, lambda done, total, note: advance(done, total, note))
    *_, page = write_outcome(workdir, outcome, time.time())
    show([outcome_tables(outcome), f"The report is in {page}"])
    return outcome.holds


def _run_config(config: Path | None, usual: str, settings: list[str], preset_name: str | None) -> "RunConfig":
    from mufun_jax.config_file import load_run_config
    from mufun_jax.model.presets import preset

    run = load_run_config(config or Path(str(files("configs") / f"{usual}.py")), settings)
    return run if preset_name is None else replace(run, model=preset(preset_name))


def _rendered(
    workdir: Path, more: Mapping[str, int], quick: bool, workers: int, held_out_soundfont: Path | None
) -> Path:
    """The score corpus, rendered and prepared in the workdir unless it is there; `more` are fields of its config."""
    from data_pipelines.prepare import PrepareOptions
    from data_pipelines.score_corpus import ScoreCorpusConfig

    more = dict.fromkeys(more, _QUICK_MORE) if quick else more
    corpus = ScoreCorpusConfig(**{**(QUICK_CORPUS if quick else {}), **more})
    options = PrepareOptions(workers=workers)
    prepare([SCORE_CORPUS], str(workdir / "data"), options, corpus=corpus, held_out_soundfont=held_out_soundfont)
    return workdir / "data"


def _described(each: "Experiment") -> list[str]:
    return [f"{each.name}: {each.question}", *(f"    {arm}: {what}" for arm, what in each.arms.items())]

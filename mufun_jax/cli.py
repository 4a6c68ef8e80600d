"""The `mufun` command. Each subcommand reads its options, calls the library, and prints."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mufun_jax import (
    ask_command,
    benchmark_command,
    checkpoints_command,
    commands,
    convert_command,
    experiment_command,
    plan_command,
    report_command,
    serve_command,
    tag_command,
)
from mufun_jax.errors import RunEndedError, UserError, exit_code

app = typer.Typer(
    help="MuFun listens to whole songs and answers in text. Start with `mufun demo`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", "--model", help="Model folder, ours or a released one, or a hub's owner/name.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one key of the config, for instance `stages.align1.steps=50`. Repeatable."),
]
ComputeOption = Annotated[Literal["float32", "bfloat16"], typer.Option(help="What the model computes in.")]
QuantizeOption = Annotated[Literal["int8"] | None, typer.Option(help="The decoder's matrices as int8: half of it.")]
WorkersOption = Annotated[int, typer.Option(help="Processes that render and prepare.", min=1)]


def main() -> None:
    """Runs the command line; a mistake of the user's is one line and exit code 2."""
    logging.getLogger().addHandler(logging.NullHandler())  # libraries log much that is no news; errors are raised
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except UserError as error:
        if len(arguments) < len(sys.argv) - 1:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RunEndedError as error:
        print(error, file=sys.stderr)
        sys.exit(exit_code(error))
    except OSError as error:  # a path too long, a folder that may not be read: the system's own words are one line
        if len(arguments) < len(sys.argv) - 1:
            raise
        named = f"{error.filename}: " if error.filename else ""
        print(f"error: {UserError(named + (error.strerror or str(error)))}", file=sys.stderr)
        sys.exit(2)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """MuFun listens to whole songs and answers in text. Start with `mufun demo`."""
    assert not debug, "main() takes --debug out, wherever it stands"


@app.command()
def demo(
    workdir: Annotated[Path, typer.Option(help="Everything is written here; a killed demo goes on from here.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the corpus: which pieces, keys and instruments.", min=0)] = 0,
    quick: Annotated[
        bool, typer.Option(help="A tiny corpus and a few steps: checks the thread, hears nothing.")
    ] = False,
    workers: WorkersOption = 2,
) -> None:
    """Render music, train a small MuFun on it in six stages, measure it, and ask it about a song.

    About nine minutes on two cores. It calls what `mufun prepare`, `train`, `evaluate` and `ask` call.
    """
    commands.demo(workdir, seed=seed, quick=quick, workers=workers)


@app.command()
def prepare(
    out: Annotated[str, typer.Option(help="Folder for the prepared sets: one folder a source.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="A manifest (.json, .jsonl); NAME:FOLDER of a public data set; or score-corpus, rendered here.",
        ),
    ] = None,
    tfds: Annotated[list[str] | None, typer.Option(help="Read this set through tensorflow_datasets.")] = None,
    tfds_dir: Annotated[str | None, typer.Option(help="Where tensorflow_datasets keeps its sets.")] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option(help="Manifest of an evaluation: its audio is kept out of training shards.")
    ] = None,
    audio: Annotated[Literal["flac", "int16"], typer.Option(help="How audio is stored; both are exact.")] = "flac",
    shard_size: Annotated[
        str, typer.Option(help="Audio files of so many bytes make a shard, for instance 256MB or 1GB.")
    ] = "256MB",
    longest: Annotated[float, typer.Option(help="Longest file in seconds; a longer one is rejected.")] = 7200.0,
    max_bad_fraction: Annotated[
        float, typer.Option(help="Stop where more of a set is bad than this fraction; less is left out and reported.")
    ] = 0.001,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad example.")] = False,
    tolerate_damage: Annotated[
        bool, typer.Option("--tolerate-damage", help="Use what can be decoded of a damaged file, with a warning.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare finished shards with their checksums; write damaged ones again.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of questions, options, and the score corpus.", min=0)] = 0,
    held_out_soundfont: Annotated[
        Path | None, typer.Option(help="Soundfont (.sf2) that plays what score-corpus holds out, and nothing else.")
    ] = None,
    workers: WorkersOption = 2,
    beam: Annotated[
        list[str] | None, typer.Option(help="Option of Apache Beam, for instance runner=DataflowRunner. Repeatable.")
    ] = None,
) -> None:
    """Turn music and what is known of it into shards that training reads. Run again, it goes on where it stopped.

    `mufun prepare songs.jsonl --out data`

    `mufun prepare gtzan:GTZAN ballroom:Ballroom --out data --evaluation benchmark.json`
    """
    from data_pipelines.prepare import PrepareOptions
    from data_pipelines.shard import ShardOptions

    if not sources and not tfds:
        raise UserError("nothing to prepare: name a manifest, NAME:FOLDER of a data set, or score-corpus")
    options = PrepareOptions(
        ShardOptions(audio, longest, tolerate_damage, strict, verify),
        shard_bytes=commands.read_bytes(shard_size, "--shard-size"),
        max_bad_fraction=max_bad_fraction,
        seed=seed,
        workers=workers,
        beam_options=tuple(beam or ()),
        evaluation=tuple(evaluation or ()),
    )
    if held_out_soundfont is not None and commands.SCORE_CORPUS not in (sources or []):
        raise UserError("--held-out-soundfont is for score-corpus, which is not among the sources")
    commands.prepare(
        sources or [], out, options, tfds=tfds or [], tfds_dir=tfds_dir, held_out_soundfont=held_out_soundfont
    )


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="Python file with `get_config()`, for instance configs/nano.py.")],
    workdir: Annotated[Path, typer.Option(help="Checkpoints, metrics and the model; a killed run goes on from here.")],
    set_: SetOption = None,
    coordinator: Annotated[
        str | None,
        typer.Option(envvar="MUFUN_COORDINATOR", help="On several processes: HOST:PORT where process 0 listens."),
    ] = None,
    processes: Annotated[int | None, typer.Option(envvar="MUFUN_PROCESSES", help="How many there are.")] = None,
    process: Annotated[int | None, typer.Option(envvar="MUFUN_PROCESS", help="Which one this is, from 0.")] = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", envvar="MUFUN_DISTRIBUTED", help="Find these three: TPU pods, SLURM.")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(metavar="FIRST:LAST", help="Profile the steps after FIRST up to LAST, of all stages.")
    ] = None,
) -> None:
    """Train a curriculum of stages, or go on with one that was stopped. The model is in WORKDIR/checkpoint.

    On several hosts, the same command on each, with `--distributed` on a TPU pod.

    SIGTERM and Ctrl-C save before they stop; SIGUSR1 profiles the next five steps, in WORKDIR/profile. Exit codes: 0
    done, 2 a mistake that you can mend, 75 stopped by SIGTERM (start it again), 130 by Ctrl-C.
    """
    from mufun_jax.config_file import load_run_config
    from mufun_jax.sharding.processes import Processes

    joining = Processes(coordinator, processes, process, distributed)
    commands.train(load_run_config(config, set_ or []), workdir, joining, commands.read_steps(profile))


@app.command()
def checkpoints(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="What was given to `mufun train`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List the checkpoints of a run: stage, step, loss, size, and whether every file is as it was written.

    Exit code 1 where one is damaged; `mufun train` would go on from the newest that is whole.
    """
    if not checkpoints_command.checkpoints(workdir, as_json=as_json):
        sys.exit(1)


app.command()(benchmark_command.evaluate)


@app.command()
def ask(
    words: Annotated[list[str], typer.Argument(metavar="SONG... QUESTION", help="Audio files, then the question.")],
    checkpoint: CheckpointOption = "runs/demo/checkpoint",
    segment: Annotated[
        tuple[float, float] | None, typer.Option(help="Hear only this part of each song, START END in seconds.")
    ] = None,
    long: Annotated[
        Literal["first", "window", "all"],
        typer.Option(help="Of a song longer than the model hears: its first part, an answer a part, or all at once."),
    ] = "first",
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)] = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0.0)] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens that add up to this.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample from this many likeliest tokens; 0: all.", min=0)] = 0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1, what was said already is less likely to be said again.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.", min=0, max=2**32 - 1)] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text. Repeatable.")] = None,
    form: Annotated[Literal["text", "json"], typer.Option("--format", help="Of the answer.")] = "text",
    schema: Annotated[
        str | None, typer.Option(help="JSON schema that the answer follows, or a file with one; with --format json.")
    ] = None,
    regex: Annotated[str | None, typer.Option(help="Regular expression that the whole answer matches.")] = None,
    choice: Annotated[list[str] | None, typer.Option(help="Answer one of these. Repeatable.")] = None,
    dtype: ComputeOption = "bfloat16",
    quantize: QuantizeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer with what was heard.")] = False,
) -> None:
    """Ask a question about one song or several. The answer comes word by word.

    `mufun ask song.mp3 "What key is it in?"`

    `mufun ask one.wav two.flac "<audio> <audio> Which of the two is faster?"`

    `mufun ask song.mp3 "Is it in major or minor?" --choice major --choice minor`
    """
    from mufun_jax.generate.sample import Sampling

    ask_command.ask(
        words[:-1],
        words[-1],
        checkpoint,
        segment=segment,
        long=long,
        max_new_tokens=max_new_tokens,
        sampling=Sampling(temperature, top_p, top_k, repetition_penalty),
        seed=seed,
        stop=stop or [],
        constraint=ask_command.read_constraint(form, schema, regex, choice or []),
        dtype=dtype,
        quantize=quantize,
        as_json=as_json,
    )


@app.command()
def tag(
    places: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Audio files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Table (.csv) or JSON lines (.jsonl) to write.")],
    fields: Annotated[
        str | None, typer.Option(help="Some of genre,mood,instruments,key,tempo,lyrics; by default all.")
    ] = None,
    checkpoint: CheckpointOption = "runs/demo/checkpoint",
    dtype: ComputeOption = "bfloat16",
    quantize: QuantizeOption = None,
) -> None:
    """Describe whole folders of songs, a row each: genre, mood, instruments, key, tempo, lyrics.

    Run again, it goes on where it stopped. A file that cannot be heard is listed at the end; the exit code is then 1.

    `mufun tag songs/ -o tags.csv`
    """
    from mufun_jax.generate.tags import read_fields

    if not tag_command.tag(places, out, read_fields(fields), checkpoint, dtype, quantize):
        sys.exit(1)


@app.command()
def serve(
    checkpoint: CheckpointOption = "runs/demo/checkpoint",
    host: Annotated[str, typer.Option(help="Address to listen at; any but this machine's own needs the token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 7860,
    token: Annotated[
        str | None,
        typer.Option(envvar="MUFUN_TOKEN", help="Who has it is answered.", show_default="made, where it is needed"),
    ] = None,
    dtype: ComputeOption = "bfloat16",
    quantize: QuantizeOption = None,
    idle_minutes: Annotated[float, typer.Option(help="Unload the model when nobody asks for so long.", min=0.0)] = 10.0,
    max_upload: Annotated[str, typer.Option(help="Largest audio file, for instance 64MB.")] = "64MB",
    max_seconds: Annotated[float, typer.Option(help="Longest audio file.", min=1.0)] = 3600.0,
    max_waiting: Annotated[int, typer.Option(help="Questions in line; more are told to come back.", min=1)] = 16,
) -> None:
    """Open a page to ask songs on, in a browser, and answer OpenAI's clients at /v1. One question at a time.

    Songs are deleted when they are replaced, the page is closed, or the answer is given. No path and no address of a
    song is taken. Needs `pip install 'mufun_jax[serve]'`.

    `mufun serve --checkpoint runs/demo/checkpoint`
    """
    from mufun_jax.serve.limits import Limits

    upload = commands.read_bytes(max_upload, "--max-upload")
    limits = Limits(upload_bytes=upload, body_bytes=2 * upload, song_seconds=max_seconds, waiting=max_waiting)
    options = {"host": host, "port": port, "token": token, "dtype": dtype, "quantize": quantize}
    serve_command.serve(checkpoint, **options, idle_minutes=idle_minutes, limits=limits)


@app.command()
def plan(
    config: Annotated[Path, typer.Option(help="Python file with `get_config()`, for instance configs/mufun_8b.py.")],
    topology: Annotated[
        str | None, typer.Option(help="Chip and chips along each axis: v5e:16x16, v6e:4x8, v5p:4x4x8, v4:…, tpu7x:….")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Stage of the curriculum; by default its last.")] = None,
    slices: Annotated[int, typer.Option(help="So many slices, joined by the data-centre network.", min=1)] = 1,
    program: Annotated[
        Literal["train", "prefill", "decode"], typer.Option(help="The train step, a whole prompt, or one more token.")
    ] = "train",
    weights: Annotated[
        Literal["bfloat16", "int8"], typer.Option(help="Of prefill and decode: the decoder's matrices as int8.")
    ] = "bfloat16",
    rows: Annotated[int, typer.Option(help="Prompts of prefill and decode; a stage has its own.", min=1)] = 1,
    search: Annotated[
        bool, typer.Option("--search", help="Try meshes, rematerialisation policies and batch sizes.")
    ] = False,
    tries: Annotated[
        int, typer.Option(help="How many are compiled in a search, or for the nearest that fits; 0: none.", min=0)
    ] = 6,
    benchmark: Annotated[
        Literal["mucue"] | None, typer.Option(help="How long its questions take, by formula, on v5e-8 and an H100.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    set_: SetOption = None,
) -> None:
    """Compile for a TPU that is not there: memory of a chip, FLOPs, bytes over the links, predicted time and MFU.

    The real program is compiled on this machine, in minutes for the full model. Times come from a stated model of
    compute, memory and links, not from a TPU. A config that does not fit ends with exit code 2 and the nearest that
    does. Needs the TPU compiler: `pip install 'mufun_jax[plan]'`.

    `mufun plan --config configs/mufun_8b.py --topology v5e:16x16`

    `mufun plan --config configs/mufun_8b.py --topology v6e:8x16 --slices 2 --set mesh.data=2 --set mesh.fsdp=128`

    `mufun plan --config configs/mufun_8b.py --topology v5e:16x16 --program decode --weights int8 --rows 256`

    `mufun plan --config configs/mufun_8b.py --benchmark mucue`
    """
    from mufun_jax.config_file import load_run_config

    # Only the stage that is planned need fit the mesh.
    run = load_run_config(config, [*(set_ or []), *([f"curriculum=({stage!r},)"] if stage else [])])
    options = {"slices": slices, "program": program, "weights": weights, "rows": rows}
    if benchmark is not None:
        plan_command.predict_benchmark(run, as_json=as_json)
        return
    if topology is None:
        raise UserError("nothing to plan for: give --topology, for instance v5e:16x16, or --benchmark mucue")
    plan_command.plan(run, stage, topology, search=search, tries=tries, as_json=as_json, **options)


@app.command()
def report(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="Folder that `mufun train` writes.")],
    out: Annotated[Path | None, typer.Option(help="Write the page here.", show_default="WORKDIR/report.html")] = None,
) -> None:
    """Write a page about a run: the curves of all stages, restarts, where the time went, mixture and config.

    One HTML file that any browser opens, without network: send it, or keep it. The run may still be going on, or have
    stopped; write it again at any time. It shows what `metrics.jsonl`, `events.jsonl`, `config.json`, `plan.json` and
    `data/` of WORKDIR say, and only reads them. Needs `pip install 'mufun_jax[report]'`.

    `mufun report runs/demo`

    `mufun report runs/mine --out mine.html`
    """
    report_command.report(workdir, out)


app.command()(experiment_command.experiment)
app.add_typer(convert_command.app, name="convert")


if __name__ == "__main__":
    main()

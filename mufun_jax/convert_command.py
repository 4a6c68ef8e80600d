"""`mufun convert`: from PyTorch, back, and a look into folders of weights."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mufun_jax import commands

app = typer.Typer(
    help="Carry checkpoints from PyTorch and back, and look into them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
DtypeOption = Annotated[
    Literal["float32", "bfloat16"] | None, typer.Option(help="Round every tensor to this; without it, each stays.")
]
ShardOption = Annotated[str, typer.Option(help="Largest file, for instance 5GB or 500MB.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a model folder that is there.")]
TapsOption = Annotated[
    str | None, typer.Option(help="Tapped encoder layers, for instance 0,7,15,32; known for every Whisper size.")
]


@app.command("from-hf")
def from_hf(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="[SRC] DST", help="A folder or a hub's owner/name, and the model folder to write."),
    ],
    whisper: Annotated[str | None, typer.Option(help="Whisper folder, or CTranslate2 model.bin: its encoder.")] = None,
    qwen3: Annotated[str | None, typer.Option(help="Qwen3 folder: the decoder and the tokenizer.")] = None,
    connector: Annotated[str | None, typer.Option(help="Connector's safetensors; without it, a fresh one.")] = None,
    taps: TapsOption = None,
    seed: Annotated[int, typer.Option(help="Of a fresh connector.", min=0, max=2**32 - 1)] = 0,
    dtype: DtypeOption = None,
    max_shard_size: ShardOption = "5GB",
    overwrite: OverwriteOption = False,
) -> None:
    """Make a model folder from a released MuFun, from the authors' stage folders, or from a Whisper and a Qwen3.

    `mufun convert from-hf MuFun-Instruct models/instruct`

    `mufun convert from-hf --whisper whisper-large-v3 --qwen3 Qwen3-8B-Base models/start`
    """
    options = {"taps": taps, "dtype": dtype, "max_shard_size": max_shard_size, "overwrite": overwrite}
    commands.convert_from_hf(folders, whisper, qwen3, connector, seed=seed, **options)


@app.command("to-hf")
def to_hf(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Model folder, as `mufun train` writes it.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write.")],
    layout: Annotated[
        Literal["released", "transformers"],
        typer.Option(help="`released`: as the released MuFun; `transformers`: Whisper, Qwen3 and connector apart."),
    ] = "released",
    dtype: DtypeOption = None,
    max_shard_size: ShardOption = "5GB",
    scores: Annotated[Path | None, typer.Option(help="Scores of `mufun evaluate --out`, for the model card.")] = None,
    license_: Annotated[str | None, typer.Option("--license", help="For the model card, such as apache-2.0.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model for PyTorch: in the released layout, or as folders that transformers loads. With a model card.

    `mufun convert to-hf runs/demo/checkpoint mufun-demo --dtype bfloat16 --license apache-2.0`
    """
    options = {"dtype": dtype, "max_shard_size": max_shard_size, "overwrite": overwrite}
    commands.convert_to_hf(source, target, layout, scores, license_, **options)


@app.command("inspect")
def inspect(
    source: Annotated[str, typer.Argument(metavar="DIR", help="Any folder that can be converted, or its Whisper.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor and the parameter that it is.")] = False,
    taps: TapsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what lies in a folder of weights, once every tensor in it has been found its place; write nothing."""
    commands.convert_inspect(source, taps, tensors=tensors, as_json=as_json)

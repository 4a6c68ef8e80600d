"""A model folder out, for PyTorch: the released layout, or the parts as `transformers` loads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mufun_jax.convert.from_torch import (
    Written,
    copy_side_files,
    keep_apart,
    stored_outputs,
    write_card,
    write_model_folder,
)
from mufun_jax.convert.model_card import model_card
from mufun_jax.convert.sources import Source, open_source
from mufun_jax.weights.hf_config import qwen3_values, section_values, whisper_values
from mufun_jax.weights.model_folder import CONFIG, SHARD_BYTES, write_json
from mufun_jax.weights.safetensors_file import Advance, OutputTensor, write_shards
from mufun_jax.weights.weight_table import RELEASED_PREFIX
from mufun_jax.weights.written_folder import check_target, written_whole

Layout = Literal["released", "transformers"]
PART_FOLDERS = {"encoder": "whisper_encoder", "connector": "connector", "decoder": "qwen3"}


def to_hf(
    source: str | Path,
    target: Path,
    *,
    layout: Layout = "released",
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    scores: Mapping[str, Any] | None = None,
    license: str | None = None,
    advance: Advance = lambda *_: None,
) -> Written:
    """Writes a model folder for PyTorch, with a model card.

    `released` is the layout of the released checkpoints, which the authors' code loads. `transformers` is three
    folders: a Whisper encoder, a Qwen3 for `Qwen3ForCausalLM.from_pretrained`, and the connector. Every tensor keeps
    its dtype, or is rounded to `dtype`. `scores` are those that `mufun evaluate --out` wrote, for the card.

    Raises:
        CheckpointError, ConfigError: what is wrong with the source or the target; nothing is left half-written.
    """
    check_target(target, overwrite=overwrite)
    opened = open_source(source)
    keep_apart(target, opened.folder, opened.tensors.values())
    outputs = stored_outputs(opened, dtype)
    card = model_card(opened, outputs, layout, scores, license)
    if layout == "released":
        options = {"shard_bytes": shard_bytes, "overwrite": overwrite, "advance": advance}
        return write_model_folder(opened, outputs, target, card=card, **options)
    with written_whole(target, overwrite=overwrite) as aside:
        _write_parts(opened, outputs, aside, shard_bytes, advance)
        write_card(aside, card)
    return Written.of(target, outputs)


def _write_parts(source: Source, outputs: list[OutputTensor], target: Path, shard_bytes: int, advance: Advance) -> None:
    total, before = sum(output.nbytes for output in outputs), 0
    for part, name in PART_FOLDERS.items():
        prefix = RELEASED_PREFIX[part]
        own = [output.renamed(output.name.removeprefix(prefix)) for output in outputs if output.name.startswith(prefix)]
        folder = target / name
        folder.mkdir()
        done = before
        write_shards(
            folder,
            own,
            shard_bytes,
            lambda now, _, note, done=done, name=name: advance(done + now, total, f"{name}: {note}"),
        )
        before += sum(output.nbytes for output in own)
        dtype = own[-1].dtype.name
        if part == "encoder":
            ours, theirs = whisper_values(source.config.encoder), source.values.get("vision_config", {})
            write_json(folder / CONFIG, {**section_values(ours, theirs, dtype), "architectures": ["WhisperEncoder"]})
        if part == "decoder":
            ours, theirs = qwen3_values(source.config.decoder), source.values.get("text_config", {})
            write_json(folder / CONFIG, {**section_values(ours, theirs, dtype), "architectures": ["Qwen3ForCausalLM"]})
            copy_side_files(source, folder)

"""The model card: `README.md` of a folder for PyTorch, with the lines on top that the Hugging Face hub reads."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from huggingface_hub import ModelCardData

from mufun_jax.convert.sources import Source
from mufun_jax.errors import CheckpointError
from mufun_jax.weights.safetensors_file import OutputTensor
from mufun_jax.weights.weight_table import RELEASED_PREFIX

_USE = {
    "released": """```python
from mufun_jax import MuFun

model = MuFun.from_pretrained("FOLDER")
print(model.chat("What is the genre?", "song.mp3"))
```

The layout is that of the released MuFun checkpoints: the authors' PyTorch code loads it too.""",
    "transformers": """```python
from transformers import AutoTokenizer, Qwen3ForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

encoder = WhisperEncoder.from_pretrained("FOLDER/whisper_encoder")
decoder = Qwen3ForCausalLM.from_pretrained("FOLDER/qwen3")
tokenizer = AutoTokenizer.from_pretrained("FOLDER/qwen3")
```

The connector's two linear layers are in `connector/`. `mufun convert from-hf --whisper FOLDER/whisper_encoder
--qwen3 FOLDER/qwen3 --connector FOLDER/connector MODEL` joins the three again.""",
}


def model_card(
    source: Source,
    outputs: Sequence[OutputTensor],
    layout: str,
    scores: Mapping[str, Any] | None,
    license: str | None,
) -> str:
    """The card of a model: base models, stages, mixtures, scores and licence, as far as they are known.

    Raises:
        CheckpointError: `scores` are not those of `mufun evaluate`.
    """
    origin, config = source.origin, source.config
    license = license or _common_license(source)
    front = ModelCardData(
        license=license or "unknown",
        base_model=[base.name for base in origin.base_models if "/" in base.name] or None,
        library_name="mufun_jax" if layout == "released" else "transformers",
        pipeline_tag="audio-text-to-text",
        tags=["music", "audio", "mufun"],
    )
    heard = f"{config.max_seconds:g} s of music, in windows of {config.encoder.window_seconds:g} s"
    sections = [
        f"---\n{front.to_yaml()}\n---",
        "# MuFun",
        "A model that listens to songs and answers in text: a Whisper encoder tapped at layers "
        f"{', '.join(map(str, config.encoder.taps))}, a two-layer connector and a Qwen3 decoder (arXiv 2508.01178). "
        f"It hears up to {heard}.",
        _parts_table(outputs),
        "## Use",
        _USE[layout],
        "## Where it comes from",
        _origin_text(source),
    ]
    if scores is not None:
        sections += ["## Scores", _scores_table(scores)]
    sections += ["## Licence", _license_text(source, license)]
    return "\n\n".join(sections) + "\n"


def _parts_table(outputs: Sequence[OutputTensor]) -> str:
    rows = ["| part | tensors | parameters | dtype |", "| --- | --: | --: | --- |"]
    for part, prefix in RELEASED_PREFIX.items():
        own = [output for output in outputs if output.name.startswith(prefix)]
        dtypes = ", ".join(sorted({output.dtype.name for output in own}))
        rows.append(f"| {part} | {len(own)} | {sum(prod(output.shape) for output in own):,} | {dtypes} |")
    return "\n".join(rows)


def _origin_text(source: Source) -> str:
    bases = [f"- {' and '.join(base.parts)}: {base.name}" for base in source.origin.base_models]
    fresh = set(RELEASED_PREFIX) - {part for base in source.origin.base_models for part in base.parts}
    bases += [f"- {part}: fresh" for part in RELEASED_PREFIX if part in fresh]
    text = "It began from:\n\n" + "\n".join(bases)
    if not source.origin.stages:
        return text + "\n\nIt was not trained by mufun_jax since."
    rows = ["| stage | steps | trained | mixture |", "| --- | --: | --- | --- |"]
    for stage in source.origin.stages:
        total = sum(stage.mixture.values())
        mixture = ", ".join(f"{name} {weight / total:.0%}" for name, weight in stage.mixture.items())
        rows.append(f"| {stage.name} | {stage.steps:,} | {', '.join(stage.trained_parts)} | {mixture} |")
    return (
        f"{text}\n\nIt was then trained by mufun_jax; the last stage was {source.origin.stages[-1].name}.\n\n"
        + "\n".join(rows)
    )


def _scores_table(scores: Mapping[str, Any]) -> str:
    rows = [
        "| task | questions | accuracy | 95 % | commonest answer | no audio | another song |",
        "| --- | --: | --: | --- | --: | --: | --: |",
    ]
    try:
        for task, score in scores["tasks"].items():
            low, high = score["interval"]
            numbers = [score["accuracy"], score["majority"], score["no_audio"], score["wrong_audio"]]
            accuracy, majority, no_audio, wrong_audio = (f"{float(number):.3f}" for number in numbers)
            interval = f"{float(low):.3f} to {float(high):.3f}"
            rows.append(
                f"| {task} | {int(score['n'])} | {accuracy} | {interval} | {majority} | {no_audio} | {wrong_audio} |"
            )
        measured = _metrics_table(scores["metrics"]) if "metrics" in scores else []
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"the scores are not those that `mufun evaluate --out` writes: {error!r}") from None
    tables = ["\n".join(table) for table in (rows, measured) if len(table) > 2]
    return "\n\n".join(["Measured by `mufun evaluate`, beside what is reached without listening:", *tables])


def _metrics_table(scores: Mapping[str, Any]) -> list[str]:
    """Of tasks that have a metric."""
    rows = [
        "| task | questions | metric | | 95 % | commonest answer | no audio | another song |",
        "| --- | --: | --- | --: | --- | --: | --: | --: |",
    ]
    for task, score in scores.items():
        low, high = score["interval"]
        numbers = [score["score"], low, high, score["constant"], score["no_audio"], score["wrong_audio"]]
        value, low, high, constant, no_audio, wrong_audio = (f"{float(number):.3f}" for number in numbers)
        better = "lower" if score["lower_is_better"] else "higher"
        name = f"{score['headline']} ({better} is better) | {value} | {low} to {high}"
        rows.append(f"| {task} | {int(score['n'])} | {name} | {constant} | {no_audio} | {wrong_audio} |")
    return rows


def _common_license(source: Source) -> str | None:
    """The licence of all base models, if they are known to have one and the same."""
    licenses = {base.license for base in source.origin.base_models}
    return licenses.pop() if len(licenses) == 1 else None


def _license_text(source: Source, license: str | None) -> str:
    known = [f"- {base.name}: {base.license or 'not known'}" for base in source.origin.base_models]
    said = f"{license}." if license else "Not known: say so with `--license` before you publish this."
    return said + ("\n\nOf what it began from:\n\n" + "\n".join(known) if known else "")

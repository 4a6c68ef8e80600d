"""The typed configuration of a run: what is trained, on what, with which sizes. Every option is declared once.

A config file is Python with a function `get_config()` that returns an `ml_collections.ConfigDict`; `load_run_config`
reads it, applies `--set a.b=v`, and answers a misspelt key or a value out of range with one line that names it.
"""

import ast
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import ml_collections
from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from mufun_jax.errors import ConfigError, nearest

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Training = Literal["full", "frozen", "lora"]
Remat = Literal["none", "layer", "save_attention", "save_dots", "offload"]
Config = TypeVar("Config")
_STRICT = ConfigDict(extra="forbid")

SAMPLE_RATE = 16_000
HOP_SAMPLES = 160  # of the log-mel spectrogram: 100 frames a second
CONVOLUTION_STRIDE = 2  # of the encoder's second convolution: 50 frames a second


@dataclass(frozen=True, config=_STRICT)
class EncoderConfig:
    """A Whisper encoder whose residual stream is tapped at several depths."""

    mel_bins: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    mlp_width: PositiveInt
    taps: tuple[NonNegativeInt, ...]  # 0 = convolutions + positions; `layers` = after the final layer norm
    window_samples: PositiveInt = 30 * SAMPLE_RATE
    pool: PositiveInt = 5  # frames averaged into one audio token: 10 tokens a second

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if list(self.taps) != sorted(set(self.taps)) or not self.taps or self.taps[-1] != self.layers:
            raise ValueError(f"taps {self.taps} must rise and end at the last layer, {self.layers}")
        if self.window_samples % (HOP_SAMPLES * CONVOLUTION_STRIDE * self.pool):
            raise ValueError(f"window_samples {self.window_samples} is no whole number of audio tokens")

    @property
    def frames(self) -> int:
        """Frames of a window after the convolutions: 50 a second."""
        return self.window_samples // (HOP_SAMPLES * CONVOLUTION_STRIDE)

    @property
    def tokens_per_window(self) -> int:
        """Audio tokens that a window becomes: 10 a second."""
        return self.frames // self.pool

    @property
    def window_seconds(self) -> float:
        return self.window_samples / SAMPLE_RATE


@dataclass(frozen=True, config=_STRICT)
class DecoderConfig:
    """A Qwen3 decoder."""

    vocab_size: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_size: PositiveInt
    mlp_width: PositiveInt
    tied_embeddings: bool
    rope_theta: PositiveFloat = 1_000_000.0
    norm_epsilon: PositiveFloat = 1e-6

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads do not share {self.kv_heads} key/value heads evenly")


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """Encoder, connector and decoder, and the longest audio the model is trained to hear."""

    encoder: EncoderConfig
    connector_width: PositiveInt  # hidden width of the two-layer connector
    decoder: DecoderConfig
    max_windows: PositiveInt = 13  # 390 s of 30 s windows

    @property
    def max_seconds(self) -> float:
        return self.max_windows * self.encoder.window_seconds


@dataclass(frozen=True, config=_STRICT)
class MeshConfig:
    """How many devices along each mesh axis. `simulated_devices` splits a CPU into that many.

    With several slices (pods joined by the data-centre network) `data` is a multiple of their number: only sums of
    gradients cross that network.
    """

    data: PositiveInt = 1  # rows; parameters are the same on each
    fsdp: PositiveInt = 1  # rows, and parameters by their width
    tensor: PositiveInt = 1  # heads and feed-forward units
    context: PositiveInt = 1  # positions of a row
    simulated_devices: NonNegativeInt = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.data, self.fsdp, self.tensor, self.context)


@dataclass(frozen=True, config=_STRICT)
class StageConfig:
    """One stage of the curriculum."""

    mixture: dict[str, PositiveFloat]  # prepared set in the run's data folder -> weight
    rows: PositiveInt  # rows of the global batch
    positions: PositiveInt  # L, of a row
    windows: PositiveInt  # W, of a row
    targets: PositiveInt  # T, of a row
    longest_audio: PositiveFloat  # seconds of each file that are used
    steps: PositiveInt | None = None  # either so many steps, the mixture's weights being shares of what is drawn …
    epochs: PositiveInt | None = None  # … or so many epochs, the weights being how often a set comes in each
    weigh_by: Literal["examples", "seconds", "size"] = (
        "examples"  # what the shares are of; see data_pipelines/mixture.py
    )
    temperature: PositiveFloat = 1.0  # of weigh_by "size": higher makes large and small sets more alike
    learning_rate: PositiveFloat = 2e-5
    warmup_fraction: Fraction = 0.03  # of the steps, linear; then cosine to zero
    template: Literal["train", "warmup"] = "train"
    accumulate: PositiveInt = 1  # parts that the rows are taken in, one after the other, for one step
    # What the backward pass finds of each layer: everything, its input, its attention's output too, what all
    # its projections give too, or its input in the host's memory. The less, the more is computed again.
    remat: Remat = "layer"
    encoder: Training = "full"
    connector: Training = "full"
    decoder: Training = "full"

    @property
    def trained_parts(self) -> tuple[str, ...]:
        parts = {"encoder": self.encoder, "connector": self.connector, "decoder": self.decoder}
        return tuple(part for part, training in parts.items() if training == "full")

    @property
    def adapted_parts(self) -> tuple[str, ...]:
        """Parts that low-rank adapters train on, themselves frozen."""
        parts = {"encoder": self.encoder, "connector": self.connector, "decoder": self.decoder}
        return tuple(part for part, training in parts.items() if training == "lora")

    def __post_init__(self) -> None:
        if not self.trained_parts and not self.adapted_parts:
            raise ValueError("encoder, connector and decoder are all frozen: nothing would train")
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.rows % self.accumulate:
            raise ValueError(f"rows {self.rows} do not divide into {self.accumulate} parts to accumulate")
        if self.epochs is not None and self.weigh_by != "examples":
            raise ValueError("weigh_by is for steps: in epochs, the weights say how often each set comes")


@dataclass(frozen=True, config=_STRICT)
class OptimizerConfig:
    """AdamW, clipped by global norm."""

    b1: Fraction = 0.9
    b2: Fraction = 0.999
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    clip_norm: PositiveFloat = 1.0


@dataclass(frozen=True, config=_STRICT)
class LoraConfig:
    """Low-rank adapters, Hu et al. 2021, arXiv 2106.09685: x W + alpha / rank x A B, of parts that train as "lora"."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    targets: tuple[str, ...] = ("query", "key", "value", "out", "gate", "up", "down")  # projections of each layer

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError("lora.targets is empty: nothing would train")


@dataclass(frozen=True, config=_STRICT)
class CheckpointConfig:
    """When the whole state of training is saved, and which saves are kept: all that one of the rules keeps.

    The end of every stage is saved and kept.
    """

    every_steps: PositiveInt = 500
    every_minutes: PositiveFloat = 30.0  # since the last save, whatever the steps
    keep: PositiveInt = 2  # the newest
    keep_every: PositiveInt | None = None  # also those whose step, of all stages, divides by this
    keep_best: NonNegativeInt = 1  # also those of least evaluation loss, if the run has an evaluation


@dataclass(frozen=True, config=_STRICT)
class EvaluationConfig:
    """The loss on prepared sets that nothing trains on, while training."""

    mixture: dict[str, PositiveFloat]  # prepared set -> how often it comes
    every_steps: PositiveInt = 500  # of all stages; a checkpoint is saved with it
    batches: PositiveInt = 8  # of the stage's shape, always the same ones

    def __post_init__(self) -> None:
        if not self.mixture:
            raise ValueError("evaluation.mixture is empty: name a prepared set and its weight")


@dataclass(frozen=True, config=_STRICT)
class GuardConfig:
    """What is done about a step whose loss or gradient cannot be right."""

    policy: Literal["stop", "rollback"] = "stop"  # rollback: on from the last checkpoint, without that batch
    norm_factor: Annotated[float, Field(gt=1.0)] = 20.0  # a gradient norm that many times the median is bad
    window: PositiveInt = 100  # steps of the running median
    most_skipped: PositiveInt = 10  # batches of the whole run; one more stops it


@dataclass(frozen=True, config=_STRICT)
class WatchConfig:
    """When a process that does not move is named, and when the run is ended so that it can be started again."""

    stall_minutes: PositiveFloat = 4.0
    end_minutes: PositiveFloat = 20.0


@dataclass(frozen=True, config=_STRICT)
class DashboardConfig:
    """Where metrics go beside WORKDIR/metrics.jsonl."""

    tensorboard: bool = True  # WORKDIR/tensorboard
    wandb_project: str | None = None  # of Weights & Biases; None: nothing is sent


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """A whole curriculum: model, data, mesh and the stages in order."""

    model: ModelConfig
    tokenizer: str  # "nano", or a folder with a Hugging Face tokenizer
    data: str  # folder of the prepared sets
    stages: dict[str, StageConfig]
    curriculum: tuple[str, ...]  # names of the stages that are run, in order; a ConfigDict itself has none
    mesh: MeshConfig = MeshConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig | None = None
    guard: GuardConfig = GuardConfig()
    watch: WatchConfig = WatchConfig()
    dashboards: DashboardConfig = DashboardConfig()
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    # Parameters while they train. With bfloat16, the optimizer keeps them in float32 beside.
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraConfig = LoraConfig()
    # Who computes attention; auto: splash on TPU, cuDNN on GPU, XLA elsewhere.
    attention: Literal["auto", "splash", "cudnn", "xla"] = "auto"
    ring: bool = False  # where positions are split, keys and values go round a ring instead of being gathered
    loader_workers: NonNegativeInt = 0  # processes that read and decode; 0: a thread of this one
    max_bad_fraction: Fraction = 0.001  # of the examples of a stage may fit no row; they are left out and reported
    initial_model: str | None = None  # folder of the model that the first stage starts from; None: random numbers
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if not self.curriculum:
            raise ValueError("the curriculum is empty: nothing would train")
        for name in self.curriculum:
            if name not in self.stages:
                raise ValueError(f"curriculum: no stage {name!r}{nearest(name, list(self.stages))}")
        self._check_model_divides()
        for name in self.curriculum:
            self._check_sizes(f"stages.{name}", self.stages[name])
        for name, stage in self.stages.items():
            if not stage.mixture:
                raise ValueError(f"stages.{name}.mixture is empty: name a manifest and its weight")

    def _check_model_divides(self) -> None:
        """That what the mesh splits of parameters divides over it. Raises ValueError with the nearest that does."""
        encoder, decoder = self.model.encoder, self.model.decoder
        for axis, part, sizes in (
            ("tensor", encoder, ("heads", "mlp_width")),
            ("tensor", decoder, ("kv_heads", "mlp_width", "vocab_size")),
            ("fsdp", encoder, ("width",)),
            ("fsdp", decoder, ("width",)),
        ):
            devices, name = getattr(self.mesh, axis), "encoder" if part is encoder else "decoder"
            for size in sizes:
                count = getattr(part, size)
                if count % devices:
                    fitting = max(fewer for fewer in range(1, devices) if count % fewer == 0)
                    raise ValueError(
                        f"model.{name}.{size} {count} does not divide over mesh.{axis} {devices}; nearest: {fitting}"
                    )

    def _check_sizes(self, where: str, stage: StageConfig) -> None:
        """That a stage's rows, positions and heads divide over the mesh, and that its audio fits. Raises ValueError."""
        mesh, encoder = self.mesh, self.model.encoder
        part, groups = stage.rows // stage.accumulate, mesh.data * mesh.fsdp
        if part % groups:
            parts = "" if stage.accumulate == 1 else f" / accumulate {stage.accumulate}"
            raise ValueError(
                f"{where}.rows {stage.rows}{parts} does not divide over mesh.data x mesh.fsdp = {groups}; "
                f"nearest: {_nearest_multiple(part, groups) * stage.accumulate}"
            )
        chunks = 2 * mesh.context
        if mesh.context > 1 and stage.positions % chunks:
            raise ValueError(
                f"{where}.positions {stage.positions} do not divide into 2 x mesh.context = {chunks} chunks; "
                f"nearest: {_nearest_multiple(stage.positions, chunks)}"
            )
        if stage.targets % mesh.context:
            raise ValueError(
                f"{where}.targets {stage.targets} do not divide over mesh.context {mesh.context}; "
                f"nearest: {_nearest_multiple(stage.targets, mesh.context)}"
            )
        if stage.longest_audio > self.model.max_seconds:
            raise ValueError(
                f"{where}.longest_audio {stage.longest_audio:g} s is more than the model's "
                f"{self.model.max_seconds:g} s, model.max_windows {self.model.max_windows}"
            )
        if stage.windows * encoder.tokens_per_window > stage.positions:
            raise ValueError(
                f"{where}.windows {stage.windows} x {encoder.tokens_per_window} tokens "
                f"does not fit into {where}.positions {stage.positions}"
            )


def _nearest_multiple(number: int, of: int) -> int:
    return max(1, round(number / of)) * of


def load_run_config(path: str | Path, settings: Sequence[str] = ()) -> RunConfig:
    """Reads a config file and applies `--set` settings, each `a.b=v` (v as Python writes it, or a plain word).

    Raises:
        ConfigError: no such file, no `get_config` in it, an unknown key, or a value out of range.
    """
    config = _execute_config_file(Path(path)).to_dict()
    for setting in settings:
        _apply_setting(config, setting)
    return validate(RunConfig, config, str(path))


def validate(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Builds a configuration dataclass from plain values.

    Raises:
        ConfigError: with `where`, the key, what is wrong with it, and for a misspelt key the nearest one.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or kind.__name__
        if first["type"] == "unexpected_keyword_argument":
            fields = _field_names(kind, first["loc"][:-1])
            message = f"unknown key {key!r}{nearest(str(first['loc'][-1]), fields)}; known: {', '.join(fields)}"
        elif first["type"] == "missing":
            message = f"the key {key!r} is missing"
        else:
            message = f"{key}: {first['msg'].removeprefix('Value error, ')}"
            if not isinstance(first["input"], dict):
                message += f" (got {first['input']!r})"
        raise ConfigError(f"{where}: {message}") from None


def to_json(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values, as checkpoints store it."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def difference(one: Any, other: Any) -> str | None:
    """The first key in which two configurations differ, as `a.b: 1 is not 2`, or None."""
    flat_one, flat_other = _flatten(to_json(one)), _flatten(to_json(other))
    for key in [*flat_one, *(key for key in flat_other if key not in flat_one)]:
        if flat_one.get(key) != flat_other.get(key):
            return f"{key}: {flat_one.get(key)} is not {flat_other.get(key)}"
    return None


def _execute_config_file(path: Path) -> ml_collections.ConfigDict:
    if not path.is_file():
        siblings = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such config file{nearest(str(path), siblings)}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path}: has no function get_config()")
    return module.get_config()


def _apply_setting(config: dict[str, Any], setting: str) -> None:
    """Applies one `a.b=v` in place. Only keys that are there or could be; the value is a Python literal or a word."""
    key, separator, text = setting.partition("=")
    if not separator:
        raise ConfigError(f"--set {setting}: write it as key=value, for instance seed=1")
    *path, last = key.split(".")
    node = config
    for depth, part in enumerate(path):
        if part not in node and part in _field_names(RunConfig, tuple(path[:depth])):
            node[part] = {}  # all its keys have defaults, or what lacks one is named later
        if not isinstance(node.get(part), dict):
            raise ConfigError(f"--set {key}: unknown key {part!r}{nearest(part, list(node))}")
        node = node[part]
    try:
        node[last] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        node[last] = text


def _field_names(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The fields of the dataclass that a validation error's path leads to, through dicts and tuples of them."""
    for part in path:
        if is_dataclass(kind):
            kind = get_type_hints(kind)[str(part)]
        elif get_origin(kind) in (dict, tuple):
            kind = get_args(kind)[1 if get_origin(kind) is dict else 0]
    return [field.name for field in fields(kind)] if is_dataclass(kind) else []


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat

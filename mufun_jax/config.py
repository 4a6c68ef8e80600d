"""The typed configuration of a run: what is trained, on what, with which sizes. Every option is declared once."""

from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic.dataclasses import dataclass

from mufun_jax.errors import nearest

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Training = Literal["full", "frozen", "lora"]
Remat = Literal["none", "layer", "save_attention", "save_dots", "offload"]
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

"""The formulas beside what XLA counts for the model itself, compiled but not run."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mufun_jax.batch import Batch
from mufun_jax.config import ModelConfig, StageConfig
from mufun_jax.model.flops import decode_flops, forward_flops, train_flops
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.plan.program import read_program
from mufun_jax.train.abstract import abstract_batch
from mufun_jax.train.state import split_params
from tests.tiny import param_shapes, tiny_decoder, tiny_encoder, tiny_model

ROWS, WINDOWS, POSITIONS, TARGETS = 2, 3, 64, 8
# Wide enough that matrix products, not elementwise work, are what XLA's count is made of. One layer between taps and
# one in the decoder: no loop, whose body XLA counts once.
UNROLLED = ModelConfig(
    tiny_encoder(width=2048, heads=32, mlp_width=8192, layers=1, taps=(0, 1), window_samples=32_000),
    4096,
    tiny_decoder(width=2048, heads=32, kv_heads=8, head_size=64, mlp_width=8192, layers=1, vocab_size=4096),
)


def stage(rows=ROWS, windows=WINDOWS, positions=POSITIONS, targets=TARGETS, **changes: Any) -> StageConfig:
    sizes = dict(rows=rows, positions=positions, windows=windows, targets=targets, longest_audio=3.0)
    return StageConfig(mixture={"songs": 1.0}, steps=1, **sizes, **changes)


def shapes_of_batch(model: ModelConfig, of: StageConfig) -> Batch:
    mesh = jax.make_mesh((1,) * 4, ("data", "fsdp", "tensor", "context"), devices=jax.devices()[:1])
    batch = abstract_batch(model, of, mesh)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)


def causal_pairs_missing(model: ModelConfig, of: StageConfig) -> float:
    """FLOPs of the half of attention that the formula leaves out and XLA's plain attention computes."""
    hidden = of.positions**2 - of.positions * (of.positions + 1) // 2
    return of.rows * model.decoder.layers * 4 * hidden * model.decoder.heads * model.decoder.head_size


def compile_loss(model: ModelConfig, of: StageConfig, *, gradient: bool):
    def loss(trained, frozen, batch):
        return MuFunModel(model).apply({"params": {**frozen, **trained}}, batch).astype(jnp.float32).var()  # pyright: ignore

    trained, frozen = split_params(param_shapes(model), of.trained_parts)
    function = jax.grad(loss) if gradient else loss
    return jax.jit(function).lower(trained, frozen, shapes_of_batch(model, of)).compile()


def counted(compiled) -> int:
    """FLOPs of dots and convolutions of a program on one device."""
    return read_program(compiled.as_text(), 1).flops


def mel_flops(model: ModelConfig, of: StageConfig) -> int:
    """Products of the spectrogram, which the formula leaves out: twelve of 100 samples by 101 bins, and two filters."""
    frames = of.rows * of.windows * 2 * model.encoder.frames
    return frames * (12 * 2 * 100 * 101 + 2 * 2 * 101 * model.encoder.mel_bins)


def lowest_gradient(model: ModelConfig, of: StageConfig) -> int:
    """What the formula counts and no program needs: the gradient of the input of the lowest layer that trains."""
    if of.encoder == "full":  # its first convolution
        return 2 * of.rows * of.windows * 2 * model.encoder.frames * 3 * model.encoder.mel_bins * model.encoder.width
    tokens = of.rows * of.windows * model.encoder.tokens_per_window
    return 2 * tokens * len(model.encoder.taps) * model.encoder.width * model.connector_width


def test_a_forward_pass_beside_xlas_count_of_it(monkeypatch):
    monkeypatch.setattr("mufun_jax.model.mufun._WINDOWS_AT_ONCE", 1000)  # XLA's count has each loop's body once
    of = stage()
    formula = forward_flops(UNROLLED, of.rows, of.windows, of.positions, of.targets).total
    analysis = compile_loss(UNROLLED, of, gradient=False).cost_analysis()
    assert analysis is not None
    # XLA counts elementwise work too: 0.8 % here.
    ours = formula + causal_pairs_missing(UNROLLED, of) + mel_flops(UNROLLED, of)
    assert ours == pytest.approx(analysis["flops"], rel=1e-2)


def test_a_forward_pass_of_scanned_layers_to_one_part_in_a_thousand():
    model, of = tiny_model(), stage()
    formula = forward_flops(model, of.rows, of.windows, of.positions, of.targets).total
    ours = formula + causal_pairs_missing(model, of) + mel_flops(model, of)
    # What is left: the taps of convolutions that lie on padding.
    assert ours == pytest.approx(counted(compile_loss(model, of, gradient=False)), rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        (dict(), (3, 3, 3)),
        (dict(encoder="frozen"), (1, 3, 3)),
        (dict(encoder="frozen", decoder="frozen"), (1, 3, 2)),
        (dict(encoder="frozen", connector="frozen"), (1, 1, 3)),
        (dict(decoder="frozen"), (3, 3, 2)),
        (dict(connector="frozen", decoder="frozen"), (3, 2, 2)),
    ],
)
def test_training_costs_what_its_parts_cost(changes, passes):
    model, of = tiny_model(decoder=tiny_decoder(tied_embeddings=False)), stage(**changes)
    forward = forward_flops(model, of.rows, of.windows, of.positions, of.targets)
    formula = train_flops(model, of)
    assert formula.encoder == passes[0] * forward.encoder
    assert formula.connector == passes[1] * forward.connector
    attention = 4 * of.rows * model.decoder.layers * 60 * POSITIONS * (POSITIONS + 1) // 2
    assert formula.decoder == passes[2] * forward.decoder + (attention if passes[2] == 2 else 0)
    assert formula.head == passes[2] * forward.head


@pytest.mark.slow
@pytest.mark.parametrize("changes", [dict(), dict(encoder="frozen"), dict(encoder="frozen", decoder="frozen")])
def test_a_train_step_beside_its_compiled_program(changes):
    of = stage(**changes)
    program = counted(compile_loss(UNROLLED, of, gradient=True))
    hidden = causal_pairs_missing(UNROLLED, of) * 3  # attention has no weights: its backward pass is two products each
    ours = train_flops(UNROLLED, of).total + hidden + mel_flops(UNROLLED, of) - lowest_gradient(UNROLLED, of)
    assert ours == pytest.approx(program, rel=1e-3)


def test_decoding_grows_with_the_context_by_its_attention():
    model = tiny_model()
    one, two = (decode_flops(model, 1, context).total for context in (100, 200))
    assert two - one == 4 * 100 * model.decoder.layers * model.decoder.heads * model.decoder.head_size

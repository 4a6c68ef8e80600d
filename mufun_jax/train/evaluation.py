"""The loss on held-out sets while training: always on the same batches, of the shape of the stage."""

from dataclasses import replace

import jax
from jax.sharding import Mesh

from data_pipelines.loader import load_batches, open_stage
from mufun_jax.batch import Batch
from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.sharding.local_rows import LocalRows
from mufun_jax.text.tokenizer import Tokenizer
from mufun_jax.train.step import make_losses
from mufun_jax.weights.params import Params


class Evaluation:
    """The evaluation of one stage. Its data is measured when it is made; the first call compiles."""

    def __init__(self, run: RunConfig, stage: StageConfig, tokenizer: Tokenizer, mesh: Mesh):
        assert run.evaluation is not None
        config = run.evaluation
        self._stage = replace(stage, mixture=config.mixture, steps=None, epochs=1, weigh_by="examples")
        self._run, self._mesh, self._count = run, mesh, config.batches
        self._data = open_stage(run, self._stage, tokenizer, run.seed)
        losses = make_losses(run, stage, mesh.devices.flat[0].platform)

        def summed(trained: Params, frozen: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
            tokens = losses(trained, frozen, batch)
            return (tokens.losses * batch.target_weights).sum(), batch.target_weights.sum()

        self._losses = jax.jit(summed)

    def loss(self, trained: Params, frozen: Params) -> float:
        """Nats a target token, over the batches. Collective."""
        rows = LocalRows(self._mesh, self._stage.rows)
        batches = load_batches(self._run, self._stage, self._data, rows.numbers)
        total = weight = 0.0
        try:
            for _ in range(self._count):
                sums = self._losses(trained, frozen, rows.to_device(next(batches)["batch"]))
                total, weight = total + float(sums[0]), weight + float(sums[1])
        finally:
            batches.close()
        return total / max(weight, 1.0)

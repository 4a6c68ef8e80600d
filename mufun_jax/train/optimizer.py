"""AdamW under a linear warmup and a cosine, clipped by global norm."""

import optax

from mufun_jax.config import OptimizerConfig, StageConfig


def learning_rate_schedule(stage: StageConfig, steps: int) -> optax.Schedule:
    """Linear from 0 over `warmup_fraction` of the stage's `steps`, then a cosine to 0 at its end."""
    warmup = round(steps * stage.warmup_fraction)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else stage.learning_rate,
        peak_value=stage.learning_rate,
        warmup_steps=warmup,
        decay_steps=steps,
    )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The direction of AdamW, before the learning rate. It is given the trained parts only: frozen ones have no state.

    The learning rate is an argument of the train step, so that stages which differ in it share one compiled program.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay),
    )

"""Experiment `layer-ablation`: the last encoder layer alone against all tapped ones, the paper's main choice."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mufun_jax.config import RunConfig
from mufun_jax.errors import UserError
from mufun_jax.experiment.experiment import Defaults, Options, Tell, chosen_arms
from mufun_jax.experiment.outcome import Outcome
from mufun_jax.experiment.trained_arms import quickened
from mufun_jax.experiment.trained_outcome import compare_arms


class LayerAblation:
    """See the module."""

    name = "layer-ablation"
    question = "Do the tapped layers hear more than the last one alone?"
    arms: Mapping[str, str] = {
        "tapped layers": "the config as it is",
        "last layer": "taps=(layers,); data, steps and the connector's hidden width are the same",
    }
    trains = True
    seeds = 3
    defaults = Defaults()

    def run(self, workdir: Path, options: Options, tell: Tell) -> Outcome:
        """Raises UserError where the config taps the last layer only, or begins from a model with other taps."""
        run = quickened(options.run) if options.quick else options.run
        runs = {arm: run if arm == "tapped layers" else last_layer(run) for arm in chosen_arms(self, options)}
        taps = ", ".join(map(str, run.model.encoder.taps))
        return compare_arms(
            self, workdir, runs, options, tell, {"tapped layers": f"{taps} of {run.model.encoder.layers}"}
        )


def last_layer(run: RunConfig) -> RunConfig:
    """The run with the encoder tapped after its last layer alone."""
    encoder = run.model.encoder
    if encoder.taps == (encoder.layers,):
        raise UserError("the config taps the last layer only: there are no layers to take away; set model.encoder.taps")
    if run.initial_model is not None:
        raise UserError("initial_model has a connector for its own taps: layer-ablation begins both arms from nothing")
    return replace(run, model=replace(run.model, encoder=replace(encoder, taps=(encoder.layers,))))

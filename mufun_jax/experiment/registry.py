"""The experiments by name."""

from mufun_jax.errors import UserError, nearest
from mufun_jax.experiment.connector_warmup import ConnectorWarmup
from mufun_jax.experiment.context_boundary import ContextBoundary
from mufun_jax.experiment.context_length import ContextLength
from mufun_jax.experiment.curriculum_order import Curriculum
from mufun_jax.experiment.experiment import Experiment
from mufun_jax.experiment.layer_ablation import LayerAblation
from mufun_jax.experiment.layer_attribution import LayerAttribution
from mufun_jax.experiment.open_data import OpenData

_ALL: tuple[Experiment, ...] = (
    ConnectorWarmup(),
    LayerAblation(),
    LayerAttribution(),
    ContextBoundary(),
    ContextLength(),
    Curriculum(),
    OpenData(),
)
EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}


def find_experiment(name: str) -> Experiment:
    """An experiment by its name. Raises UserError, with the nearest, for an unknown one."""
    if name not in EXPERIMENTS:
        known = list(EXPERIMENTS)
        raise UserError(f"no experiment {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return EXPERIMENTS[name]

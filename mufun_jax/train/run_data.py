"""The data of all stages of a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_pipelines.loader import count_steps, open_stage
from data_pipelines.prepared_set import PreparedSet
from data_pipelines.stage_data import StageData
from mufun_jax.config import RunConfig
from mufun_jax.text.tokenizer import Tokenizer


class RunData:
    """The data of every stage, measured when it is first asked for. All sets are opened at once: what is missing is
    found before anything is trained."""

    def __init__(self, run: RunConfig, tokenizer: Tokenizer, on_measure: Callable[[str, int, int], None]):
        self._run, self.tokenizer, self._on_measure = run, tokenizer, on_measure
        self._measured: dict[str, StageData] = {}
        mixtures = [run.stages[stage].mixture for stage in run.curriculum]
        if run.evaluation is not None:
            mixtures.append(run.evaluation.mixture)
        for name in {name: None for mixture in mixtures for name in mixture}:
            PreparedSet(Path(run.data), name)

    def __getitem__(self, name: str) -> StageData:
        if name not in self._measured:
            run = self._run
            number = run.curriculum.index(name)
            seed = int(np.random.SeedSequence([run.seed, number]).generate_state(1)[0])
            self._measured[name] = open_stage(
                run, run.stages[name], self.tokenizer, seed, lambda *records: self._on_measure(name, *records)
            )
        return self._measured[name]

    def steps(self, name: str) -> int:
        """Steps of a stage: what its config says, or what its epochs take."""
        stage = self._run.stages[name]
        return stage.steps if stage.steps is not None else count_steps(stage, self[name])

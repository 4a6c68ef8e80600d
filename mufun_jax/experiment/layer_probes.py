"""Linear probes on the frozen features of every encoder layer: what a layer holds, whatever the model makes of it."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32

from mufun_jax.evaluate.tasks import Item
from mufun_jax.experiment.experiment import Tell
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.encoder_features import encoder_features

_FOLDS = 5
_FEWEST_SONGS = 10  # of a task; fewer say nothing
_STEPS = 5_000  # of the solver, at most


def song_of(item: Item) -> str:
    """What songs are told apart by: the file and its segment."""
    return f"{item.example.audio[0]} {item.example.segments[:1]}"


def song_features(model: MuFun, items: Sequence[Item], tell: Tell) -> dict[str, Float32[np.ndarray, "depths D"]]:
    """The mean of each song's hidden states at all depths, over its windows and their frames."""
    songs = {song_of(item): item for item in items}
    found = {}
    for number, (song, item) in enumerate(songs.items()):
        tell(number, len(songs), "features of songs")
        segment = item.example.segments[0] if item.example.segments else None
        windows = model.listener.song(item.example.audio[0], segment, model.config.max_windows).windows
        features = encoder_features(model, windows, pool=model.config.encoder.frames)
        found[song] = features[:, :, 0].mean(axis=1, dtype=np.float32)
    return found


def probe_accuracy(features: Float[np.ndarray, "songs D"], answers: Sequence[str], seed: int) -> tuple[int, int] | None:
    """How many answers logistic regression reads from the features of songs that it was not fitted to, and of how many.

    Each fifth of the songs is left out in turn; features are scaled to unit variance. None where songs or answers are
    too few.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count, labels = len(answers), np.array(answers)
    if count < _FEWEST_SONGS or len(set(answers)) < 2:
        return None
    order = list(range(count))
    random.Random(seed).shuffle(order)
    fold, right = np.empty(count, np.int64), 0
    fold[order] = np.arange(count) % _FOLDS
    for left_out in range(_FOLDS):
        fitted, asked = fold != left_out, fold == left_out
        if len(set(labels[fitted])) == 1:
            said = np.full(asked.sum(), labels[fitted][0])
        else:
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_STEPS))
            said = probe.fit(features[fitted], labels[fitted]).predict(features[asked])
        right += int((said == labels[asked]).sum())
    return right, count


def probe_layers(
    features: Mapping[str, Float32[np.ndarray, "depths D"]], items: Mapping[str, Sequence[Item]], seed: int
) -> dict[str, list[tuple[int, int] | None]]:
    """By task, what each depth's probe has right, and of how many songs. A song counts once, by its first question."""
    found = {}
    for task, of_task in items.items():
        answers = {song_of(item): item.answer for item in reversed(of_task)}
        rows = np.stack([features[song] for song in answers], axis=1)
        found[task] = [probe_accuracy(depth, list(answers.values()), seed) for depth in rows]
    return found

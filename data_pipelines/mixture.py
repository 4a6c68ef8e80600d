"""The order of training: which example comes as number n, a function of the seed and n alone.

Nothing is remembered: any process, on any number of hosts, can say what example 1,000,000 is, and a run goes on
anywhere.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Int64

from mufun_jax.errors import ConfigError

WeighBy = Literal["examples", "seconds", "size"]
_LARGEST_WEIGHT = 1e6
_CYCLE = 10_000  # draws in which every set has its share, to the draw


def shares(
    weights: Sequence[float], examples: Sequence[int], seconds: Sequence[float], weigh_by: WeighBy, temperature: float
) -> list[float]:
    """The share of the drawn examples that each set has; they add up to 1.

    By `examples`, shares are as the weights. By `seconds`, shares of the audio that is heard are; `seconds` is each
    set's mean of an example. By `size`, a set's weight is multiplied by its number of examples to the power of
    1 / temperature: at 1 all examples are as likely, and the higher, the more alike the sets (Raffel et al. 2020,
    arXiv 1910.10683, section 3.5.2).
    """
    if weigh_by == "seconds":
        if not all(seconds):
            raise ConfigError("weigh_by 'seconds' needs audio in every set; a set of text has none: weigh by examples")
        scaled = [weight / mean for weight, mean in zip(weights, seconds, strict=True)]
    elif weigh_by == "size":
        most = max(examples)
        scaled = [weight * (count / most) ** (1 / temperature) for weight, count in zip(weights, examples, strict=True)]
    else:
        scaled = list(weights)
    return [one / sum(scaled) for one in scaled]


class Mixture:
    """Endless draws from several sets by shares. Each set is gone through once an epoch of its own, in a new order."""

    def __init__(self, examples: Sequence[int], share: Sequence[float], seed: int):
        """`examples[s]` is the number of examples of set s, `share[s]` its share of the draws."""
        counts = _whole_counts(share)
        # Draw k of a set that has c of the cycle's draws stands at (k + 1/2) / c of the cycle: evenly spread.
        places = [(k + 0.5) / count for count in counts for k in range(count)]
        order = np.argsort(places, kind="stable")
        self._set_of = np.repeat(np.arange(len(counts)), counts)[order]
        self._rank_of = np.concatenate([np.arange(count) for count in counts])[order]
        self._counts = np.array(counts)
        self._examples = np.array(examples)
        self._seed = seed

    def __getitem__(self, numbers: range) -> Int64[np.ndarray, "n 2"]:
        """Set and example of each draw of a range of numbers."""
        number = np.arange(numbers.start, numbers.stop)
        cycle, place = np.divmod(number, len(self._set_of))
        chosen = self._set_of[place]
        turns = cycle * self._counts[chosen] + self._rank_of[place]
        return _examples_of(chosen, turns, self._examples, self._seed)


class Epochs:
    """So many epochs over all sets: in each, every example of a set as often as its weight says, shuffled together.

    With weight 1 an example comes exactly once an epoch, with 2 twice. With 0.5 half of the set comes, and the other
    half in the next epoch.
    """

    def __init__(self, examples: Sequence[int], weights: Sequence[float], epochs: int, seed: int):
        """Raises ConfigError where a set is not drawn from at all."""
        self._examples = np.array(examples)
        self._seed = seed
        # Draws of each set before each epoch: whole numbers nearest below, so that what an epoch lacks the next has.
        passes = np.arange(epochs + 1)[:, None] * np.array(weights)[None]
        self._before = np.floor(passes * self._examples[None] + 1e-9).astype(np.int64)
        if not self._before[-1].all():
            raise ConfigError(
                f"{epochs} epochs of sets of {list(examples)} examples by weights {list(weights)}: a set is "
                "never drawn from; raise its weight, or leave it out"
            )
        self._starts = np.pad(np.cumsum(np.diff(self._before, axis=0), axis=1), ((0, 0), (1, 0)))
        self._epoch_starts = self._before.sum(axis=1)

    def __len__(self) -> int:
        return int(self._epoch_starts[-1])

    def __getitem__(self, numbers: range) -> Int64[np.ndarray, "n 2"]:
        """Set and example of each draw of a range of numbers; numbers beyond the end are left out."""
        number = np.arange(numbers.start, min(numbers.stop, len(self)))
        epoch = np.searchsorted(self._epoch_starts, number, side="right") - 1
        place, length = number - self._epoch_starts[epoch], self._starts[epoch, -1]
        shuffled = _shuffled(place, length, epoch, np.full_like(place, self._seed))
        chosen = (self._starts[epoch] <= shuffled[:, None]).sum(axis=1) - 1
        turns = self._before[epoch, chosen] + shuffled - self._starts[epoch, chosen]
        return _examples_of(chosen, turns, self._examples, self._seed + 1)


def make_order(
    weights: Mapping[str, float],
    examples: Sequence[int],
    seconds: Sequence[float],
    *,
    epochs: int | None,
    weigh_by: WeighBy,
    temperature: float,
    seed: int,
) -> "Mixture | Epochs":
    """The order of a stage: exact epochs where it has a number of them, endless draws by shares otherwise."""
    for name, count in zip(weights, examples, strict=True):
        if not count:
            raise ConfigError(f"mixture: {name!r} has no example that fits a row")
        if not weights[name] <= _LARGEST_WEIGHT:
            raise ConfigError(f"mixture: the weight {weights[name]:g} of {name!r} is more than {_LARGEST_WEIGHT:g}")
    if epochs is not None:
        return Epochs(examples, list(weights.values()), epochs, seed)
    share = shares(list(weights.values()), examples, seconds, weigh_by, temperature)
    for name, one in zip(weights, share, strict=True):
        if one * _CYCLE < 1:
            raise ConfigError(
                f"mixture: {name!r} would be {one:.2g} of what is drawn; at least 1 of {_CYCLE} can be had"
            )
    return Mixture(examples, share, seed)


def _examples_of(
    sets: Int64[np.ndarray, " n"], turns: Int64[np.ndarray, " n"], examples: Int64[np.ndarray, " sets"], seed: int
) -> Int64[np.ndarray, "n 2"]:
    """What the draw number `turn` of each set is: every example once in each round of as many draws."""
    epoch, place = np.divmod(turns, examples[sets])
    return np.stack([sets, _shuffled(place, examples[sets], epoch, seed + sets)], axis=1)


def _shuffled(
    place: Int64[np.ndarray, " n"],
    length: Int64[np.ndarray, " n"],
    epoch: Int64[np.ndarray, " n"],
    seed: Int64[np.ndarray, " n"],
) -> Int64[np.ndarray, " n"]:
    """Each place of the permutation of `length` that seed and epoch draw."""
    keys, which = np.unique(np.stack([length, seed, epoch], axis=1), axis=0, return_inverse=True)
    shuffled = np.zeros_like(place)
    for number, key in enumerate(keys.tolist()):
        asked = which == number
        shuffled[asked] = _permutation(*key)[place[asked]]
    return shuffled


@lru_cache(maxsize=128)
def _permutation(length: int, seed: int, epoch: int) -> Int64[np.ndarray, " length"]:
    """Drawn from the generator's own bits, which numpy promises not to change from version to version."""
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(length)
    return np.argsort(bits, kind="stable")


def _whole_counts(share: Sequence[float]) -> list[int]:
    """Shares as whole numbers of draws that add up to the cycle, at least one each; largest remainders round up."""
    exact = np.array(share) * _CYCLE
    counts = np.maximum(1, np.floor(exact)).astype(int)
    for index in np.argsort(np.floor(exact) - exact, kind="stable")[: max(0, _CYCLE - int(counts.sum()))]:
        counts[index] += 1
    return counts.tolist()

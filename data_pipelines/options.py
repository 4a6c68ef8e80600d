"""Wrong options of a four-option question, drawn so that the four options alone do not give the answer away."""

import math
import random

from data_pipelines.keys import KEYS, parallel, relative

OPTIONS = 4
SLOWEST, FASTEST = 30, 300  # beats a minute that a tempo option may have
TEMPO_RATIO = 1.15  # tempi nearer than this, or than this to double or half, are taken for the same

_RATIO_IN_OCTAVES = math.log2(TEMPO_RATIO)


def wrong_options(
    task: str, answer: str, truths: tuple[str, ...], pool: tuple[str, ...], rng: random.Random
) -> list[str]:
    """Three wrong options for `answer`, none of them among `truths`; an empty list where there are not three.

    Equal but for case counts as the same option. Tempi follow from the answer and need no pool.
    """
    if task == "tempo":
        return _wrong_tempi(answer, rng) if len(truths) == 1 else []
    if task == "key" and set(KEYS) <= set(pool) and answer in KEYS and rng.random() < 0.5:
        near = _near_keys(answer, rng)
        if not set(near) & set(truths):
            return near
    true = {truth.casefold() for truth in truths}
    usable = list({option.casefold(): option for option in reversed(pool) if option.casefold() not in true}.values())
    return rng.sample(sorted(usable), OPTIONS - 1) if len(usable) >= OPTIONS - 1 else []


def _near_keys(key: str, rng: random.Random) -> list[str]:
    """Three keys that are taken for this one: relative and parallel keys in a chain, such as Am, C, Cm, Eb.

    With both the relative and the parallel key of the answer in every question, the answer would be the one option
    that both belong to. A chain has two ends and two middles, and the answer stands in each place equally often.
    """
    if rng.random() < 0.5:  # an end
        chain = [relative(key), parallel(relative(key)), relative(parallel(relative(key)))]
    else:
        chain = [relative(key), parallel(key), relative(parallel(key))]
    rng.shuffle(chain)
    return chain


def octave_distance(one: int, other: int) -> float:
    """How far two tempi are apart when double and half count as the same: 0 to 0.5 octaves."""
    apart = math.log2(one / other) % 1
    return min(apart, 1 - apart)


def _wrong_tempi(answer: str, rng: random.Random) -> list[str]:
    """Whole beats a minute, all four a ratio of 1.15 apart even after doubling and halving.

    On the circle that doubling closes, four points with gaps of log2(1.15) leave 0.19 of an octave to draw from. Each
    wrong tempo is then put above or below the answer, so that the answer is the slowest, the second, the third or the
    fastest of the four equally often (but for the slowest and fastest answers, which have no room on one side).
    """
    right = int(answer)
    if not SLOWEST <= right <= FASTEST:
        return []
    while True:  # rounding to whole beats spoils some draws of slow tempi; every answer has a draw that stays
        cuts = sorted(rng.random() for _ in range(OPTIONS - 1))
        spare = 1 - OPTIONS * _RATIO_IN_OCTAVES
        steps = [(place + 1) * _RATIO_IN_OCTAVES + spare * cut for place, cut in enumerate(cuts)]
        above = rng.randrange(OPTIONS)
        rng.shuffle(steps)
        tempi = [_placed(right, step, place < above) for place, step in enumerate(steps)]
        if _all_apart([right, *tempi]):
            return [str(tempo) for tempo in tempi]


def _placed(tempo: int, step: float, above: bool) -> int:
    """The tempo `step` octaves (below 1) above, or its half below, whichever is asked for and within the limits."""
    high, low = round(tempo * 2**step), round(tempo * 2 ** (step - 1))
    if above:
        return high if high <= FASTEST else low
    return low if low >= SLOWEST else high


def _all_apart(tempi: list[int]) -> bool:
    return all(
        octave_distance(one, other) >= _RATIO_IN_OCTAVES for place, one in enumerate(tempi) for other in tempi[:place]
    )

"""Right or wrong, and how sure the share of right answers is."""

from collections import Counter
from collections.abc import Sequence

from mufun_jax.evaluate.statistics import wilson


def is_correct(reply: str, answer: str) -> bool:
    """Equal but for case, surrounding space and a final full stop. No other reading: a longer reply is wrong."""
    return reply.strip().rstrip(".").casefold() == answer.strip().rstrip(".").casefold()


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion (Wilson 1927)."""
    return wilson(correct / n, n)


def majority_accuracy(answers: Sequence[str]) -> float:
    """The accuracy of always giving the answer that is commonest among these very answers: no constant does better."""
    return Counter(answers).most_common(1)[0][1] / len(answers)

"""Captions: sacreBLEU's BLEU and chrF, and how near their embeddings are where a model for that is given."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from sacrebleu.metrics.bleu import BLEU, MAX_NGRAM_ORDER
from sacrebleu.metrics.chrf import CHRF

from mufun_jax.errors import UserError
from mufun_jax.evaluate.metrics.measured import Measured

Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> float [texts, width], each of length 1


def measure_captions(replies: Sequence[str], references: Sequence[str], embed: Embed | None = None) -> Measured:
    """`bleu` and `chrf` of all replies together, 0 to 100, by sacreBLEU with its defaults (BLEU: order 4, tokenizer
    13a, with case, exponential smoothing; chrF2), one reference each; `bleu` is the main figure. `length_ratio` is the
    number of the replies' tokens by that of the references'. An empty reply is counted as `unreadable`.

    With `embed`, `similarity` is the mean cosine of reply and reference, and 0 for an empty reply.
    """
    bleu = BLEU(effective_order=True)  # of single sentences only: a corpus is scored with all orders
    whole = BLEU().corpus_score(replies, [references])
    empty = [not reply.strip() for reply in replies]
    figures = {
        "bleu": whole.score,
        "chrf": CHRF().corpus_score(replies, [references]).score,
        "length_ratio": whole.sys_len / whole.ref_len if whole.ref_len else float("nan"),
        "unreadable": float(sum(empty)),
    }
    if embed is not None:
        products = (embed(replies) * embed(references)).sum(axis=1)
        figures["similarity"] = fmean(
            0.0 if none else float(value) for none, value in zip(empty, products, strict=True)
        )
    sums = [_statistics(bleu, reply, reference) for reply, reference in zip(replies, references, strict=True)]
    return Measured(figures, np.array(sums, np.float64), _bleu, bounds=(0.0, 100.0))


def load_embed(folder: Path) -> Embed:
    """Embeddings by a sentence-transformers model in a local folder. Nothing is fetched, and no code in it is run.

    Raises:
        UserError: the library is missing, or the folder holds no such model.
    """
    if not (folder / "modules.json").is_file():
        raise UserError(f"captions:{folder}: holds no modules.json; name the folder of a sentence-transformers model")
    try:
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError(
            "the similarity of captions needs sentence-transformers, which is not installed: "
            "pip install sentence-transformers, or leave the model out (--metric TASK=captions)"
        ) from None
    model = SentenceTransformer(
        str(folder), local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True}
    )
    return lambda texts: np.asarray(model.encode(list(texts), normalize_embeddings=True))


def _statistics(bleu: BLEU, reply: str, reference: str) -> list[float]:
    """What sacreBLEU adds up over a corpus: matches and n-grams of each order, and both lengths."""
    one = bleu.sentence_score(reply, [reference])
    return [*one.counts, *one.totals, one.sys_len, one.ref_len]


def _bleu(sums: np.ndarray) -> float:
    counts = [round(float(value)) for value in sums]
    n = MAX_NGRAM_ORDER
    return BLEU.compute_bleu(
        counts[:n], counts[n : 2 * n], counts[2 * n], counts[2 * n + 1], smooth_method="exp", effective_order=False
    ).score

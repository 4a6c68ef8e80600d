import json
import math
import sys
from types import ModuleType

import numpy as np
import pytest
import sacrebleu

from mufun_jax.errors import UserError
from mufun_jax.evaluate.metrics.captions import measure_captions
from mufun_jax.evaluate.metrics.registry import find_metric, score_task

REPLIES = ["a slow piano piece in a minor key", "loud rock with drums .", ""]
REFERENCES = ["a slow piano piece in a major key", "loud rock with guitars and drums .", "silence"]


def test_as_sacrebleu_says():
    scores = score_task("captions", REPLIES, REFERENCES)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(REPLIES, [REFERENCES]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(REPLIES, [REFERENCES]).score)
    assert (scores["unreadable"], scores["length_ratio"]) == (1.0, 13 / 16)
    assert "similarity" not in scores


def test_bleu_by_hand():
    """7 of 8 words, 5 of 7 pairs, 4 of 6 triples and 3 of 5 quadruples are there, and nothing is too short."""
    bleu = score_task("captions", REPLIES[:1], REFERENCES[:1])["bleu"]
    assert bleu == pytest.approx(100 * math.prod((7 / 8, 5 / 7, 4 / 6, 3 / 5)) ** 0.25)


def test_sums_make_the_corpus_score():
    measured = measure_captions(REPLIES, REFERENCES)
    assert measured.headline(measured.sums.sum(axis=0)) == pytest.approx(measured.figures["bleu"])


def test_similarity_by_the_embeddings_given():
    """An angle of 60 degrees, the same text, and an empty reply, which has none whatever the model makes of it."""
    vectors = {REPLIES[0]: (1, 0), REFERENCES[0]: (0.5, 0.75**0.5), REPLIES[1]: (0, 1), REFERENCES[1]: (0, 1)}
    embed = lambda texts: np.array([vectors.get(text, (1, 0)) for text in texts])  # noqa: E731
    assert measure_captions(REPLIES, REFERENCES, embed).figures["similarity"] == pytest.approx((0.5 + 1 + 0) / 3)


def test_a_model_for_similarity_is_a_local_folder(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"captions:.*nowhere: holds no modules\.json"):
        find_metric(f"captions:{tmp_path / 'nowhere'}")
    (tmp_path / "modules.json").write_text(json.dumps([]))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match="needs sentence-transformers, which is not installed"):
        find_metric(f"captions:{tmp_path}")

    class Model:
        def __init__(self, folder, **options):
            assert folder == str(tmp_path)
            assert options["local_files_only"]
            assert not options["trust_remote_code"]

        def encode(self, texts, *, normalize_embeddings):
            assert normalize_embeddings
            return [[1.0, 0.0] for _ in texts]

    library = ModuleType("sentence_transformers")
    library.SentenceTransformer = Model  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    assert score_task(f"captions:{tmp_path}", ["a"], ["b"])["similarity"] == 1.0

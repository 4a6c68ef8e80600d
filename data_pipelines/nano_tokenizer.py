"""Trains the nano model's tokenizer, as shipped in `mufun_jax/text/nano_tokenizer/`.

    python -m data_pipelines.nano_tokenizer FOLDER

Its text is all that the score corpus can say: the templates, every phrasing and every answer, by formula and not by
sampling, so that it comes out the same everywhere.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.score_questions import PITCH_CLASSES, TASKS, answers_of, note_name, phrasings_of
from mufun_jax.text.conversation import Turn, render
from mufun_jax.text.tokenizer import train_tokenizer

VOCAB_SIZE = 512
_NOTES = range(48, 96)


def corpus_text() -> Iterator[str]:
    """Every question with every answer, note names with octaves, and keys."""
    for task in TASKS:
        for phrasing in phrasings_of(task):
            for answer in answers_of(task):
                text = render([Turn(f"<audio>\n{phrasing}", answer)]).text
                yield from text.replace("<|im_end|>", "<audio>").split("<audio>")
    yield from (" " + note_name(note) for note in _NOTES for _ in range(len(PITCH_CLASSES)))


def main(folder: str) -> None:
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    train_tokenizer(corpus_text(), VOCAB_SIZE).save(str(out / "tokenizer.json"))


if __name__ == "__main__":
    main(*sys.argv[1:])

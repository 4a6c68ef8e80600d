"""Songs of sections: what is said of them is what is played."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.score_corpus import ScoreCorpusConfig, render_score_corpus
from data_pipelines.score_pieces import Piece, read_pieces, read_tune_texts
from data_pipelines.score_questions import INSTRUMENTS, SECTIONS, STRUCTURE_TASKS, answers_of, label_histogram
from data_pipelines.score_render import BASS, soundfont_path, synthesise
from data_pipelines.score_structure import draw_sections, label_sections, play_sections


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    return [found for found in read_pieces(read_tune_texts()[:40]) if isinstance(found, Piece)]


@pytest.mark.parametrize("count", SECTIONS)
@pytest.mark.parametrize("returns", [False, True])
def test_songs_are_minutes_of_different_instruments(pieces: list[Piece], count: int, returns: bool) -> None:
    for seed in range(5):
        sections = draw_sections(pieces, count, returns, random.Random(seed))
        assert len({section.instrument for section in sections}) == count
        tunes = [section.passage.piece.name for section in sections]
        assert (tunes[0] == tunes[-1]) == returns
        assert len(set(tunes)) == count - returns
        assert len({section.passage.tempo for section in sections}) == 1
        clip = play_sections("x", sections, random.Random(seed))
        assert 30 * count <= clip.seconds < 390
        assert {stroke.channel for stroke in clip.strokes if stroke.channel != BASS} == {0, *range(2, count + 1)}
        assert max(stroke.stop for stroke in clip.strokes) < clip.seconds


def test_answers_are_what_is_played(pieces: list[Piece]) -> None:
    asked = set()
    for seed in range(20):
        sections = draw_sections(pieces, 5, seed % 2 == 0, random.Random(seed))
        order = [section.instrument for section in sections]
        labelled = label_sections("a", "a.flac", sections, seed % 2 == 0, random.Random(seed))
        assert labelled.answers["first_instrument"] == order[0]
        assert labelled.answers["last_instrument"] == order[-1]
        place = order.index(labelled.about)
        assert labelled.answers["next_instrument"] == order[place + 1]
        assert labelled.answers["sections"] == "5"
        assert labelled.answers["return"] == ["no", "yes"][seed % 2 == 0]
        asked.add(place)
    assert asked == {0, 1, 2, 3}


def test_each_section_sounds_as_its_instrument(pieces: list[Piece]) -> None:
    """The song's samples in a section are closest in their spectrum to that section's instrument alone."""
    sections = draw_sections(pieces, 4, False, random.Random(3))
    clip = play_sections("x", sections, random.Random(3))
    samples = synthesise(clip, str(soundfont_path()))
    assert len(samples) == round(clip.seconds * 16_000)
    starts = [min(s.start for s in clip.strokes if s.channel == channel) for channel in (0, 2, 3, 4)]
    assert starts == sorted(starts)
    for place, section in enumerate(sections):
        start = round(starts[place] * 16_000)
        heard = samples[start : start + 80_000]
        likeness = {}
        for instrument in (each.instrument for each in sections):
            strokes = tuple(
                replace(stroke, start=stroke.start - starts[place], stop=stroke.stop - starts[place], channel=channel)
                for stroke in clip.strokes
                for channel in [BASS if stroke.channel == BASS else 0]
                if starts[place] <= stroke.start < starts[place] + 5
            )
            alone = replace(
                clip, program=INSTRUMENTS[instrument], others=(), seconds=60.0, strokes=strokes, path=instrument
            )
            likeness[instrument] = np.corrcoef(spectrum(heard), spectrum(synthesise(alone, str(soundfont_path()))))[
                0, 1
            ]
        assert max(likeness, key=lambda name: likeness[name]) == section.instrument


def spectrum(samples: np.ndarray) -> np.ndarray:
    return np.log(1e-3 + np.abs(np.fft.rfft(samples[:79_000])))


def test_corpus_with_structures(tmp_path: Path) -> None:
    config = ScoreCorpusConfig(
        pieces=60,
        train_notes=2,
        train_excerpts=1,
        train_songs=1,
        held_out_notes=1,
        held_out_excerpts=1,
        held_out_songs=1,
        train_structures=2,
        held_out_structures=1,
    )
    report = render_score_corpus(tmp_path / "corpus", config, workers=1)
    trained, held_out = (
        json.loads((tmp_path / "corpus" / f"{name}_structures.json").read_text()) for name in ("train", "heldout")
    )
    assert [len(entry["conversations"]) for entry in trained] == [10, 10]
    assert [entry["task"] for entry in held_out] == list(STRUCTURE_TASKS)
    assert len({entry["audio"] for entry in held_out}) == 1
    for entry in held_out:
        question, answer = (turn["value"] for turn in entry["conversations"])
        assert answer in answers_of(entry["task"]) and "{" not in question
    assert report["clips"]["train structures"]["clips"] == 2
    assert report["labels"]["heldout_structures"] == label_histogram(held_out)
    assert soundfile.info(str(tmp_path / "corpus" / trained[0]["audio"])).duration > 120

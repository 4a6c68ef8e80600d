"""Songs of minutes: sections after one another, a tune and an instrument each, and what can be asked of their order.

Each instrument plays one section only, so "after the trumpet" is one place. Some songs end with the tune that they
began with, on another instrument. What comes first is heard in any 30 s; what comes last only by who hears it all.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_pipelines.score_pieces import Piece
from data_pipelines.score_questions import INSTRUMENTS, SECTIONS, TEMPOS, Labelled
from data_pipelines.score_render import MELODY, Clip, Passage, draw_song, play_bars, random_peak

# Eight of the longest sections, with what stands between them, are 390 s; four of the shortest are two minutes.
SECTION_SECONDS = (30.0, 47.5)


@dataclass(frozen=True)
class Section:
    """A passage, and the word for the instrument that plays it."""

    passage: Passage
    instrument: str


def draw_sections(pieces: Sequence[Piece], count: int, returns: bool, rng: random.Random) -> tuple[Section, ...]:
    """`count` sections in one tempo, the last one's tune the first one's if the song `returns`, else all different."""
    assert count in SECTIONS
    tunes = rng.sample(pieces, count - returns)
    tempo = rng.choice(TEMPOS)
    passages = [draw_song(tune, rng.randint(-5, 6), tempo, rng, SECTION_SECONDS) for tune in tunes]
    if returns:
        passages.append(passages[0])
    instruments = rng.sample(list(INSTRUMENTS), count)
    return tuple(Section(passage, instrument) for passage, instrument in zip(passages, instruments, strict=True))


def play_sections(path: str, sections: Sequence[Section], rng: random.Random) -> Clip:
    """The sections after one another, each melody on a channel of its own, the bass always on its."""
    strokes, seconds = [], 0.0
    for number, section in enumerate(sections):
        clip = play_bars(path, INSTRUMENTS[section.instrument], section.passage, rng)
        channel = MELODY if number == 0 else number + 1  # channel 1 is the bass's
        for stroke in clip.strokes:
            moved = replace(stroke, start=stroke.start + seconds, stop=stroke.stop + seconds)
            strokes.append(replace(moved, channel=channel) if stroke.channel == MELODY else moved)
        seconds += clip.seconds
    first, *others = (INSTRUMENTS[section.instrument] for section in sections)
    return Clip(path, first, seconds, random_peak(rng), tuple(strokes), tuple(others))


def label_sections(name: str, path: str, sections: Sequence[Section], returns: bool, rng: random.Random) -> Labelled:
    """All that can be asked about the song; after which instrument the next is asked for is drawn."""
    instruments = [section.instrument for section in sections]
    before = rng.randrange(len(sections) - 1)
    answers = {
        "first_instrument": instruments[0],
        "last_instrument": instruments[-1],
        "next_instrument": instruments[before + 1],
        "sections": str(len(sections)),
        "return": "yes" if returns else "no",
    }
    return Labelled(name, path, answers, about=instruments[before])

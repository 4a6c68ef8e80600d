"""What is heard is what the labels say: pitch, onsets, tempo, bit-exact repetition."""

import random
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.score_pieces import Note, Piece
from data_pipelines.score_questions import INSTRUMENTS
from data_pipelines.score_render import (
    SAMPLE_RATE,
    Clip,
    Passage,
    Stroke,
    draw_excerpt,
    draw_song,
    play_bars,
    play_note,
    soundfont_path,
    synthesise,
)


@pytest.fixture(scope="module")
def soundfont() -> str:
    return str(soundfont_path())


def waltz(bars: int = 8) -> Piece:
    notes = tuple(Note(float(beat), 1.0, 67 + (0, 4, 7)[beat % 3]) for beat in range(3 * bars))
    return Piece("test", 7, "major", "3/4", None, 3.0, 1.0, bars, notes, (4, 3, -7) * bars)


def strength(samples: np.ndarray, pitch: int) -> float:
    """Share of the spectrum's energy within 30 cents of the first six partials of a MIDI pitch."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 16)) ** 2
    frequencies = np.fft.rfftfreq(1 << 16, 1 / SAMPLE_RATE)
    near = np.zeros(len(power), bool)
    for partial in range(1, 7):
        centre = partial * 440 * 2 ** ((pitch - 69) / 12)
        near |= np.abs(frequencies / centre - 1) < 2 ** (30 / 1200) - 1
    return float(power[near].sum() / power.sum())


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_note_sounds_at_its_pitch(soundfont: str, instrument: str) -> None:
    for pitch in (60, 67, 73, 83):
        samples = synthesise(play_note("x", INSTRUMENTS[instrument], pitch, random.Random(1)), soundfont)
        heard = {other: strength(samples, other) for other in range(pitch - 6, pitch + 6)}
        assert max(heard, key=lambda other: heard[other]) == pitch
        # The organ's lower octave carries half of the energy.
        assert heard[pitch] > (0.4 if instrument == "organ" else 0.6)
        assert max(heard[pitch - 1], heard[pitch + 1]) < 0.05


def test_every_instrument_is_the_soundfont_s_of_that_name(soundfont: str) -> None:
    from tinysoundfont import Synth

    synth = Synth()
    font = synth.sfload(soundfont)
    for word, program in INSTRUMENTS.items():
        assert word in str(synth.sfpreset_name(font, 0, program)).lower()


def test_melody_and_bass_have_their_own_sounds(soundfont: str) -> None:
    def sound(program: int, channel: int) -> np.ndarray:
        return synthesise(Clip("x", program, 1.0, 0.5, (Stroke(0.0, 0.6, 48, 90, channel),)), soundfont)

    assert not np.array_equal(sound(INSTRUMENTS["piano"], 0), sound(INSTRUMENTS["flute"], 0))
    bass = sound(INSTRUMENTS["piano"], 1)
    np.testing.assert_array_equal(bass, sound(INSTRUMENTS["flute"], 1))
    np.testing.assert_array_equal(bass, sound(32, 0))


def test_note_lengths_and_level(soundfont: str) -> None:
    rng = random.Random(0)
    clips = [play_note("x", INSTRUMENTS["flute"], 72, rng) for _ in range(200)]
    assert max(clip.seconds for clip in clips) <= 2.8
    assert min(clip.seconds - clip.strokes[0].start for clip in clips) >= 1.0
    assert max(clip.strokes[0].start for clip in clips) <= 0.3
    samples = synthesise(clips[0], soundfont)
    assert abs(len(samples) / SAMPLE_RATE - clips[0].seconds) < 0.001
    assert np.abs(samples).max() == pytest.approx(clips[0].peak, rel=1e-5)
    assert 0.35 < clips[0].peak < 0.71
    before = samples[: int((clips[0].strokes[0].start - 0.01) * SAMPLE_RATE)]
    assert np.abs(before).max() < 0.01


def test_sound_does_not_depend_on_what_was_rendered_before(soundfont: str) -> None:
    rng = random.Random(0)
    clips = [play_note("x", program, pitch, rng) for program in INSTRUMENTS.values() for pitch in (60, 79)]
    clips.append(play_note("x", 96, 60, rng))  # a synthesiser sound that rings on longer than the pause
    clips.append(play_bars("x", 40, Passage(waltz(), 0, 4, 0, 125, True), rng))
    forwards = [synthesise(clip, soundfont) for clip in clips]
    backwards = [synthesise(clip, soundfont) for clip in reversed(clips)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("tempo", [70, 165])
def test_onsets_are_heard_at_the_tempo(soundfont: str, tempo: int) -> None:
    clip = play_bars("x", INSTRUMENTS["xylophone"], Passage(waltz(), 0, 4, 0, tempo, False), random.Random(3))
    samples = synthesise(clip, soundfont)
    hop = SAMPLE_RATE // 100
    energy = np.square(samples[: len(samples) // hop * hop].reshape(-1, hop)).mean(axis=1)
    rise = np.maximum(np.diff(np.log10(energy + 1e-6)), 0)
    peaks = [i for i in range(2, len(rise) - 2) if rise[i] > 0.5 and rise[i] == rise[i - 2 : i + 3].max()]
    assert len(peaks) == 12
    assert np.diff(peaks).mean() / 100 == pytest.approx(60 / tempo, rel=0.01)


def test_compound_beat_is_the_dotted_quarter() -> None:
    jig = Piece("j", 7, "major", "6/8", "jig", 3.0, 1.5, 1, tuple(Note(i / 2, 0.5, 67) for i in range(6)), ())
    starts = [stroke.start for stroke in play_bars("x", 0, Passage(jig, 0, 1, 0, 95, False), random.Random(0)).strokes]
    assert starts[3] - starts[0] == pytest.approx(60 / 95)


def test_first_beats_are_louder_and_the_bass_plays_the_chord() -> None:
    clip = play_bars("x", 0, Passage(waltz(), 0, 4, 2, 95, True), random.Random(0))
    melody = [stroke for stroke in clip.strokes if stroke.channel == 0]
    bass = [stroke for stroke in clip.strokes if stroke.channel == 1]
    assert min(s.velocity for s in melody[::3]) > max(s.velocity for s in melody[1::3] + melody[2::3])
    assert [stroke.pitch % 12 for stroke in bass] == [9] * 4, "the triad on G, up two semitones"
    assert [stroke.start for stroke in bass] == [stroke.start for stroke in melody[::3]]


def test_repeated_pitch_is_struck_anew(soundfont: str) -> None:
    program = INSTRUMENTS["organ"]
    strokes = (Stroke(0.0, 0.5, 67, 90), Stroke(0.5, 1.0, 67, 90))
    samples = synthesise(Clip("x", program, 1.3, 0.5, strokes), soundfont)
    assert np.abs(samples[int(0.7 * SAMPLE_RATE) : int(0.9 * SAMPLE_RATE)]).max() > 0.2


def test_excerpts_and_songs_keep_their_lengths() -> None:
    rng = random.Random(0)
    for bars in (8, 15, 31):
        for tempo in (70, 95, 125, 165):
            excerpt = play_bars("x", 0, draw_excerpt(waltz(bars), 0, tempo, rng), rng)
            assert 5.0 <= excerpt.seconds <= 9.6
            assert 20.0 <= play_bars("x", 0, draw_song(waltz(bars), 0, tempo, rng), rng).seconds <= 39.0


def test_soundfont_is_the_one_of_pretty_midi() -> None:
    assert Path(soundfont_path()).name == "TimGM6mb.sf2"

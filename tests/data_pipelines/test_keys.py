import pytest

from data_pipelines.keys import KEYS, parallel, pitch_class, relative, spelt_key


def test_24_keys():
    assert len(set(KEYS)) == 24
    assert all(spelt_key(key) == key for key in KEYS)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("D# minor", "Eb minor"),
        ("Ebm", "Eb minor"),
        ("D#:min", "Eb minor"),
        ("eb Minor", "Eb minor"),
        ("C", "C major"),
        ("CM", "C major"),
        ("Gb:maj", "F# major"),
        ("Cb major", "B major"),
        ("E♭ major", "Eb major"),
        ("Fbb major", "Eb major"),
        ("D dorian", None),
        ("H minor", None),
        ("C minor / F# minor", None),
        ("-", None),
        ("", None),
    ],
)
def test_one_spelling_a_key(written, key):
    assert spelt_key(written) == key


def test_pitch_classes():
    assert [pitch_class(name) for name in ("C", "Db", "B#", "x", "C4")] == [0, 1, 0, None, None]


def test_near_keys():
    assert (relative("C major"), relative("A minor"), relative("Eb major")) == ("A minor", "C major", "C minor")
    assert (parallel("Bb minor"), parallel("F# major")) == ("Bb major", "F# minor")
    for key in KEYS:
        assert relative(relative(key)) == parallel(parallel(key)) == key

"""Tunes read from ABC text: bars, labels, the key check, duplicates."""

import pytest

from data_pipelines.score_pieces import (
    Note,
    Piece,
    TuneFilter,
    TuneText,
    krumhansl_key,
    read_piece,
    read_tune_texts,
)

SCALE = "GABc d2g2|f2ed c2BA|"


def abc(body: str = f"Bc|{SCALE * 4}G4 G2:|", key: str = "G", meter: str = "C|", dance: str = "R:reel\n") -> TuneText:
    return TuneText("test", f"X:1\nT:A tune\n{dance}M:{meter}\nL:1/8\nK:{key}\n{body}\n")


def piece(tune: TuneText) -> Piece:
    found = read_piece(tune)
    assert isinstance(found, Piece), found
    return found


def test_tune_becomes_whole_bars_without_upbeat_and_short_last_bar() -> None:
    found = piece(abc())
    assert (found.bars, found.bar, found.beat) == (8, 4.0, 1.0)
    assert found.notes[:6] == (
        Note(0.0, 0.5, 67),
        Note(0.5, 0.5, 69),
        Note(1.0, 0.5, 71),
        Note(1.5, 0.5, 72),
        Note(2.0, 1.0, 74),
        Note(3.0, 1.0, 79),
    )
    assert found.notes[6] == Note(4.0, 1.0, 78), "the key's F sharp"


def test_labels_come_from_the_header() -> None:
    found = piece(abc())
    assert (found.tonic, found.mode, found.meter, found.dance) == (7, "major", "4/4", "reel")
    assert piece(abc(dance="")).dance is None
    assert piece(abc(dance="R:march\n")).dance is None
    jig = piece(abc("GAB d2g|d2B G3|" * 4, meter="6/8", dance="R: Double Jig\n"))
    assert (jig.meter, jig.dance, jig.bar, jig.beat) == ("6/8", "jig", 3.0, 1.5)


def test_short_bar_and_upbeat_after_a_repeat_are_one_bar() -> None:
    first = SCALE * 2
    found = piece(abc(f"Bc|{first}G2B2 G2:|\n|:Bc|{SCALE * 2}G4 G2:|"))
    assert found.bars == 9
    joined = [note for note in found.notes if 16.0 <= note.onset < 20.0]
    assert [(note.onset, note.pitch) for note in joined] == [
        (16.0, 67), (17.0, 71), (18.0, 67), (19.0, 71), (19.5, 72)
    ]  # fmt: skip


def test_tie_joins_one_pitch_and_a_slur_between_two_does_not() -> None:
    notes = piece(abc("G2-G2 A2-B2|" + SCALE * 4)).notes
    assert notes[:3] == (Note(0.0, 2.0, 67), Note(2.0, 1.0, 69), Note(3.0, 1.0, 71))


def test_grace_notes_and_second_endings_are_left_out() -> None:
    found = piece(abc(f"{SCALE * 4}" + "[1 {a}G4 d4:|[2 B8|]"))
    assert found.bars == 9
    assert [note.pitch for note in found.notes if note.onset >= 32.0] == [67, 74]


@pytest.mark.parametrize(
    ("tune", "reason"),
    [
        (abc(key="C", body="^F2G2 ^F2D2|" * 9), "declared key is not the heard one"),
        (abc(body=SCALE * 3), "fewer than 8 whole bars in a row"),
        (abc(body="GABc d2|" * 20), "fewer than 8 whole bars in a row"),
    ],
)
def test_unusable_tune_is_left_out_with_its_reason(tune: TuneText, reason: str) -> None:
    assert read_piece(tune) == reason


def test_key_is_heard_by_what_sounds_longest() -> None:
    short = [Note(i / 4, 0.25, pitch) for i, pitch in enumerate([65, 69, 72] * 4)]
    long = [Note(3.0, 2.0, 62), Note(5.0, 1.0, 69), Note(6.0, 2.0, 62)]
    assert krumhansl_key(short) == (5, "major")
    assert krumhansl_key(short + long) == (2, "minor")


def test_window_clips_its_last_note_and_begins_the_tune_again() -> None:
    found = piece(abc())
    assert found.window(1, 1) == [Note(n.onset - 4.0, n.duration, n.pitch) for n in found.notes[6:12]]
    again = found.window(7, 2)
    assert [note.pitch for note in again if note.onset >= 4.0] == [note.pitch for note in found.notes[:6]]
    tied = piece(abc("G4 B2d2-|d4 G4|" + SCALE * 4))
    assert tied.window(0, 2)[2] == Note(3.0, 3.0, 74)
    assert tied.window(0, 1)[2] == Note(3.0, 1.0, 74)


def test_filter_finds_a_copy_in_another_key_with_another_title_and_ending() -> None:
    tunes = TuneFilter()
    original = piece(abc()).intervals
    copy = piece(abc(f"de|{'DEFG A2d2|c2BA G2FE|' * 4}F4 F2|", key="D")).intervals
    other = piece(abc("G2d2 B2G2|A2F2 D2F2|G2B2 c2A2|d2B2 G4|" * 2)).intervals
    assert original != copy
    assert tunes.is_new(original)
    assert not tunes.is_new(copy)
    assert tunes.is_new(other)
    assert not tunes.is_new(other[:5]), "too short to be told from another"


def test_collections_are_read_and_key_changes_left_out() -> None:
    tunes = read_tune_texts()
    assert len(tunes) > 3500
    assert len({tune.name for tune in tunes}) == len(tunes)
    assert all(tune.text.count("\nK:") == 1 for tune in tunes)

from collections import Counter

import pytest

from data_pipelines.sources.gtzan import GENRES, GTZAN, split_table
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone


@pytest.fixture
def folder(tmp_path):
    """Files 5 and 99 of each genre, and some labels."""
    for genre in GENRES:
        for number in (5, 99):
            write_tone(tmp_path / "genres" / genre / f"{genre}.{number:05d}.wav")
    write_text(tmp_path / "gtzan_tempo_beat-main/tempo/gtzan_disco_00005.bpm", "119.62\n")
    keys = tmp_path / "gtzan_key/gtzan_key/genres"
    write_text(keys / "disco/disco.00005.lerch.txt", "12\n")
    write_text(keys / "blues/blues.00099.lerch.txt", "-1\n")
    write_text(keys / "jazz/jazz.00099.lerch.txt", "11")
    return tmp_path


def test_the_fault_filtered_splits_are_whole():
    table = split_table()
    assert Counter(table.values()) == {"train": 443, "validation": 197, "test": 290}
    assert Counter(genre for genre, _ in table) == {
        "blues": 100, "classical": 99, "country": 98, "disco": 93, "hiphop": 92,
        "jazz": 87, "metal": 91, "pop": 84, "reggae": 86, "rock": 100,
    }  # fmt: skip
    assert all(0 <= number < 100 for _, number in table)


def test_reads_the_folder(folder):
    clips = read_checked(GTZAN, folder)
    disco = clips["gtzan-disco.00005"]
    assert (disco.audio, disco.split) == ("genres/disco/disco.00005.wav", "train")
    assert answers(disco) == {"genre": ("disco",), "tempo": ("120",), "key": ("A minor",)}
    assert disco.labels[0].pool == GENRES
    assert answers(clips["gtzan-blues.00099"]) == {"genre": ("blues",)}, "modulating"
    assert answers(clips["gtzan-jazz.00099"])["key"] == ("Ab major",)
    assert clips["gtzan-blues.00005"].split == "validation"
    assert clips["gtzan-blues.00099"].split == "test"
    assert "gtzan-reggae.00005" not in clips, "a fault"
    assert next(iter(clips)) == "gtzan-blues.00005"


def test_other_names_of_the_folder(folder):
    (folder / "genres").rename(folder / "genres_original")
    assert read_checked(GTZAN, folder)["gtzan-rock.00005"].audio == "genres_original/rock/rock.00005.wav"
    write_tone(folder / "plain" / "blues" / "blues.00000.au")
    for genre in GENRES:
        (folder / "plain" / genre).mkdir(exist_ok=True)
    write_text(folder / "plain/blues/notes.txt", "")
    assert [clip.audio for clip in GTZAN.read(folder / "plain")] == ["blues/blues.00000.au"]


def test_wrong_folders_and_labels(folder):
    with pytest.raises(ManifestError, match=r"no audio in genres/blues/blues\.\*"):
        list(GTZAN.read(folder / "genres" / "rock"))
    for text in ("24", "x", "-2"):
        write_text(folder / "gtzan_key/gtzan_key/genres/disco/disco.00005.lerch.txt", text)
        with pytest.raises(ManifestError, match=rf"disco\.00005\.lerch\.txt, line 1: '{text}' is no key"):
            list(GTZAN.read(folder))
    (folder / "gtzan_key").rename(folder / "keys")
    (folder / "genres/metal").rename(folder / "metal")
    with pytest.raises(ManifestError, match="holds no folder metal"):
        list(GTZAN.read(folder))

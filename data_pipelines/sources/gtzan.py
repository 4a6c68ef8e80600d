"""GTZAN: 1,000 excerpts of 30 s in ten genres (Tzanetakis and Cook 2002), with key and tempo where they are there."""

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.keys import KEYS
from data_pipelines.score_questions import key_name
from data_pipelines.sources.data_set import Clip, DataSet, Label, Split
from data_pipelines.sources.layout import bad_row, base_of, beats_a_minute, first_line, optional
from mufun_jax.errors import ManifestError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")

# The fault-filtered partition of Kereliuk, Sturm and Larsen, "Deep Learning and Music Adversaries" (2015), by file
# number: no artist stands in two splits, and repeated, distorted and mislabelled files are in none.
_SPLITS: dict[Split, dict[str, str]] = {
    "train": {
        "blues": "29-49 73-97",
        "classical": "30-33 43-48 50-67 80-99",
        "country": "19-26 28-29 65-99",
        "disco": "5 15-20 22-37 39-45 47 49 53-54 56-57 59 61 70 73-74 89",
        "hiphop": "2-25 28-29 31-38 41-42 55-61 77-80",
        "jazz": "0-1 11-24 41 47-72",
        "metal": "2-3 5 21 24 35 46-57 59-66 69 71-72 79-80 84 86 89-99",
        "pop": "2-9 11-12 16-20 23-29 31-36 38-42 44 46 49-50 80 97-99",
        "reggae": "0-2 4 6 9 11-12 14-32 42-45 49-51 54-60 63 69",
        "rock": "0-9 16-26 57-70 91-99",
    },
    "validation": {
        "blues": "0-11 50-60",
        "classical": "0-10 68-76",
        "country": "0-7 9-18 27 41-42 45 49",
        "disco": "0 2-4 6-14 46 48 52 67-68 72 75 90 95",
        "hiphop": "81-98",
        "jazz": "2-10 25-32",
        "metal": "0-1 6-11 16-20 36-37 68 76-77 81-82",
        "pop": "10 53 55 58-62 81 83-86",
        "reggae": "61-62 70 72 74 76-78 85 92-99",
        "rock": "38 49-56 71-85",
    },
    "test": {
        "blues": "12-28 61-72 98-99",
        "classical": "11-29 34-41 49 77-79",
        "country": "30-40 43-44 46-48 50-51 53-64",
        "disco": "1 21 58 62-66 69 76-88 91-94 96-97 99",
        "hiphop": "0 26-27 30 40 43-45 51-54 62-75 99",
        "jazz": "73-99",
        "metal": "12-15 22-23 25-33 38-39 67 70 73-75 78 83 85 87-88",
        "pop": "0-1 13-14 43 63-66 69-79 82 88-96",
        "reggae": "34-40 46-48 52-53 64-68 71 79 82-84 87-90",
        "rock": "10-15 27-37 39-48 86-90",
    },
}
_BASES = ("genres", "genres_original", "Data/genres_original", "gtzan_genre/genres", "")
_TEMPI = ("gtzan_tempo_beat-main/tempo", "gtzan_tempo_beat/tempo")
_KEYS = ("gtzan_key/gtzan_key/genres", "gtzan_key-master/gtzan_key/genres", "gtzan_key/genres")


def split_table() -> dict[tuple[str, int], Split]:
    """The split of each genre's file numbers; a file that is not in it is left out."""
    table: dict[tuple[str, int], Split] = {}
    for split, genres in _SPLITS.items():
        for genre, ranges in genres.items():
            for part in ranges.split():
                first, _, last = part.partition("-")
                table |= {(genre, number): split for number in range(int(first), int(last or first) + 1)}
    return table


def read_gtzan(folder: Path) -> Iterator[Clip]:
    """The files of the fault-filtered splits that are there, as .wav or as the first release's .au."""
    base = base_of(folder, _BASES, "blues/blues.*")
    tempi, keys, splits = optional(folder, *_TEMPI), optional(folder, *_KEYS), split_table()
    for genre in GENRES:
        if not (folder / base / genre).is_dir():
            raise ManifestError(f"{folder / base}: holds no folder {genre}; unpack all ten genres there")
        for path in sorted((folder / base / genre).iterdir()):
            number = re.fullmatch(rf"{genre}\.(\d{{5}})\.(?:wav|au)", path.name)
            split = splits.get((genre, int(number[1]))) if number else None
            if number is None or split is None:
                continue
            labels = [Label("genre", (genre,), GENRES)]
            if tempi and (tempo := tempi / f"gtzan_{genre}_{number[1]}.bpm").is_file():
                labels.append(Label("tempo", (beats_a_minute(tempo),)))
            if keys and (file := keys / genre / f"{genre}.{number[1]}.lerch.txt").is_file() and (key := _key(file)):
                labels.append(Label("key", (key,), KEYS))
            yield Clip(f"gtzan-{path.stem}", f"{base}{genre}/{path.name}", split, tuple(labels))


def _key(path: Path) -> str | None:
    """0 to 11 are the major keys from A upwards, 12 to 23 the minor ones; -1 is a modulation or unknown."""
    line = first_line(path)
    if not re.fullmatch(r"-1|\d{1,2}", line) or int(line) > 23:
        raise bad_row(path, 1, f"{line!r} is no key from -1 to 23")
    number = int(line)
    return None if number < 0 else key_name(number % 12 + 9, "major" if number < 12 else "minor")


GTZAN = DataSet(
    name="gtzan",
    read=read_gtzan,
    licence="none given: excerpts of commercial recordings, for research only; the key labels of gtzan_key likewise",
    hours=8.3,
    layout=(
        "genres/<genre>/<genre>.00000.wav (or genres_original/); if there, gtzan_tempo_beat-main/tempo/*.bpm and "
        "gtzan_key/gtzan_key/genres/<genre>/*.lerch.txt"
    ),
    url="http://marsyas.info/downloads/datasets.html",
    splits="no official ones; the fault-filtered 443/197/290 files of Kereliuk et al. 2015, the other 70 left out",
)

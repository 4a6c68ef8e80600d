"""MuCUE: 27 sets of four-option questions, as the hub has it or as a folder of files.

The hub's layout is Parquet, one split a set: `data/gs_key_30s-00000-of-00003.parquet`, with underscores in names that
have hyphens elsewhere (`mmau_music`). The other layout has `SET.jsonl` or `SET.json` beside audio files, whose names in
the records are relative to the record file. Either way a record has `audio`, `question`, `choices_text`,
`correct_choice` (a letter) and `time_seg` (`[start, end]` in seconds, or empty for all of the file).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from mufun_jax.errors import UserError, nearest
from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE, parse_choices
from mufun_jax.evaluate.benchmark_question import Benchmark, BenchmarkQuestion
from mufun_jax.evaluate.benchmarks.audio_file import find_song
from mufun_jax.evaluate.benchmarks.record_file import SHARD, files_in, records, whole
from mufun_jax.evaluate.benchmarks.row import Row, RowError, collect, letter_place, read_segment

PROMPT = "Choose the correct option for the question based on the audio. "
_FIELDS = ("audio", "question", "choices_text", "correct_choice", "time_seg")
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # not records
_SUFFIXES = (".parquet", ".jsonl", ".json")
_LAYOUTS = "data/SET-00000-of-00001.parquet as the hub has them, or SET.jsonl beside audio files"


def set_groups() -> dict[str, str]:
    """The group of each of the 27 sets, in the published order; the set that the average leaves out comes last."""
    table = json.loads((files("mufun_jax.evaluate.benchmarks") / "published.json").read_text(encoding="utf-8"))
    return {normalized(entry["name"]): entry["group"] for entry in [*table["sets"], table["also_listed_not_averaged"]]}


def normalized(name: str) -> str:
    """A set's name as the hub writes it: `mmau_music` for `mmau-music`."""
    return name.replace("-", "_")


def read_mucue(folder: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """The sets that are in the folder, or of those the ones named.

    Raises:
        UserError: no MuCUE there, an unknown or absent set, one that is there twice or not whole, or a file that is
            none of MuCUE's.
    """
    groups = set_groups()
    found = _set_files(folder, groups)
    chosen = list(found) if sets is None else [_known(name, found, groups, folder) for name in sets]
    rows = (row for name in groups if name in chosen for row in _rows(name, found[name], folder))
    return collect(
        "mucue",
        rows,
        lambda row: _question(row, folder, groups[row.set]),
        {name: group for name, group in groups.items() if name in chosen},
    )


def _known(name: str, found: Mapping[str, list[Path]], groups: Mapping[str, str], folder: Path) -> str:
    if normalized(name) in found:
        return normalized(name)
    if normalized(name) in groups:
        raise UserError(f"{folder}: the set {name!r} is not in it; there are {', '.join(found)}")
    raise UserError(f"no set {name!r} in MuCUE{nearest(normalized(name), list(groups))}; it has {', '.join(groups)}")


def _set_files(folder: Path, groups: Mapping[str, str]) -> dict[str, list[Path]]:
    """The files of each set, in the order of their shards."""
    found: dict[str, dict[tuple[int, int], Path]] = {}
    for path in files_in(folder, _SUFFIXES):
        shard = SHARD.fullmatch(path.stem)
        name = normalized(shard["set"] if shard else path.stem)
        if name not in groups:
            if path.name in _ABOUT:
                continue
            raise UserError(f"{path}: MuCUE has no set {name!r}{nearest(name, list(groups))}; expected are {_LAYOUTS}")
        place = (int(shard["number"]), int(shard["count"])) if shard else (0, 1)
        other = found.setdefault(name, {}).setdefault(place, path)
        if other is not path:
            raise UserError(f"{path}: the set {name} is in {other}, too; leave one of them in the folder")
    if not found:
        raise UserError(f"{folder}: no MuCUE in it; expected are {_LAYOUTS}")
    return {name: whole(f"the set {name}", shards, folder) for name, shards in found.items()}


def _rows(name: str, paths: Sequence[Path], folder: Path) -> Iterator[Row]:
    number = 0
    for path in paths:
        for fields, song in records(path, "MuCUE", _FIELDS, "audio"):
            own = fields.get("id")
            id_ = f"{number:05d}" if own is None else str(own)
            beside = path.parent.relative_to(folder).as_posix()
            yield Row(name, f"{name}/{id_}", fields, song, beside)
            number += 1


def _question(row: Row, folder: Path, group: str) -> BenchmarkQuestion:
    fields = row.fields
    question, text = row.text("question"), row.text("choices_text")
    try:
        choices = parse_choices(text)
    except ValueError as error:
        raise RowError(f"choices_text has {error}") from None
    return BenchmarkQuestion(
        id=row.id,
        set=row.set,
        group=group,
        song=row.song if row.song is not None else find_song(folder, fields["audio"], (row.beside, ".")),
        prompt=f"{PROMPT}{question} {OPTIONS_PLACE}",
        options=choices.options,
        answer=letter_place(fields.get("correct_choice"), len(choices.options), "correct_choice"),
        segment=read_segment(fields.get("time_seg")),
        source=fields,
        layout=choices.layout,
        options_text=text,
    )

"""The table of public data sets that the documentation shows, made from what the readers say of themselves."""

from collections.abc import Mapping

from data_pipelines.sources.registry import DATA_SETS

# What each data set's labels are, as Clips have them: the tests compare.
TASKS: dict[str, tuple[str, ...]] = {
    "ballroom": ("dance", "tempo", "meter"),
    "dali": ("lyrics", "language", "genres"),
    "dali_lines": ("lyrics",),
    "fma": ("genre",),
    "giantsteps_key": ("key",),
    "groove": ("style", "tempo", "meter"),
    "gtzan": ("genre", "tempo", "key"),
    "guitarset": ("style", "tempo", "key", "chords"),
    "guitarset_transcription": ("chords", "notes"),
    "magnatagatune": ("tags",),
    "medleydb": ("genre", "instruments", "vocal"),
    "mtg_jamendo": ("genres", "instruments", "mood"),
    "musiccaps": ("caption", "tags"),
    "nsynth": ("instrument", "pitch", "source", "quality"),
    "salami": ("structure", "genre"),
}
_HEADS = ("data set", "hours", "labels", "licence", "splits", "stages")


def data_set_table(mixtures: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table, a row a data set, by name. `mixtures` says the weights of data sets in each stage."""
    rows = [_HEADS, ("---", "---:", "---", "---", "---", "---")]
    for name, data_set in sorted(DATA_SETS.items()):
        stages = [stage for stage, mixture in mixtures.items() if name in mixture]
        rows.append(
            (
                f"[`{name}`]({data_set.url})",
                f"{data_set.hours:,.1f}",
                ", ".join(TASKS[name]),
                data_set.licence,
                data_set.splits,
                ", ".join(f"`{stage}`" for stage in stages) or "none",
            )
        )
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)

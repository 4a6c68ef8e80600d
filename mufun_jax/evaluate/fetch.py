"""Benchmarks downloaded from the Hugging Face hub with the `datasets` library, into a folder that the readers read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError, nearest
from mufun_jax.evaluate.benchmarks.registry import BENCHMARKS


@dataclass(frozen=True)
class _OnHub:
    """A data set with its audio inside. Without a revision it is the newest."""

    dataset: str
    audio_column: str
    revision: str | None = None


_ON_HUB = {
    "mucue": _OnHub("Yi3852/MuCUE", "audio", "2fd45ed1f7d462da22f1dce1018d6599d3696d68"),
    "mmau": _OnHub("gamma-lab-umd/MMAU-test-mini", "context"),
    "hummusqa": _OnHub("mtg-upf/HumMusQA", "audio"),
}
_BY_HAND = {
    "mmau-pro": "download the repository gamma-lab-umd/MMAU-Pro from the hub, and unpack its audio beside test.parquet",
    "mmar": "download MMAR-meta.json and the audio archive of BoJack/MMAR from the hub, and unpack it beside the file",
    "muchomusic": "download muchomusic.csv, and the audio of MusicCaps and of the Song Describer Dataset",
    "cmi-bench": "clone github.com/nicolaus625/CMI-bench, and download the data sets that it is made of as it says",
    "jsonl": "it is a file of your own",
}


def fetch(name: str, folder: Path) -> list[Path]:
    """Downloads a benchmark; gives the files `folder/data/SPLIT-00000-of-00001.parquet`, one a split.

    A split whose file is there already is left as it is. Files appear whole: an interrupted download leaves none.

    Raises:
        UserError: an unknown benchmark, one that cannot be fetched so, no `datasets`, no hub, or damage in what it
            gave.
    """
    if name in _BY_HAND:
        raise UserError(f"{name} cannot be fetched: {_BY_HAND[name]}")
    if name not in _ON_HUB:
        raise UserError(f"no benchmark {name!r}{nearest(name, list(BENCHMARKS))}; there are {', '.join(BENCHMARKS)}")
    source = _ON_HUB[name]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    written = []
    for split, dataset in _loaded(source, name).items():
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        if not path.exists():
            partial = path.with_suffix(".partial")
            dataset.to_parquet(str(partial))
            partial.rename(path)
        written.append(path)
    return written


def _loaded(source: _OnHub, name: str) -> dict[str, Any]:
    """The splits of a data set, the audio as the bytes of files: decoding is the model's business."""
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise UserError(
            f"fetching {name} needs the library 'datasets', which is not installed: pip install 'mufun_jax[hub]'; or "
            f"download {source.dataset} from the hub by other means"
        ) from None
    try:
        splits = datasets.load_dataset(source.dataset, revision=source.revision)
    except (OSError, DatasetsError) as error:  # of the hub, the disk, and files that do not fit
        cause = error.__cause__ if isinstance(error, DatasetsError) and error.__cause__ else error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise UserError(f"{source.dataset}: the hub did not give it: {reason}") from error
    return {
        str(split): dataset.cast_column(source.audio_column, datasets.Audio(decode=False))
        for split, dataset in splits.items()
    }

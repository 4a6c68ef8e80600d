"""Every public data set that is read here, by name."""

from data_pipelines.sources.ballroom import BALLROOM
from data_pipelines.sources.dali import DALI, DALI_LINES
from data_pipelines.sources.data_set import DataSet
from data_pipelines.sources.fma import FMA
from data_pipelines.sources.giantsteps_key import GIANTSTEPS_KEY
from data_pipelines.sources.groove import GROOVE
from data_pipelines.sources.gtzan import GTZAN
from data_pipelines.sources.guitarset import GUITARSET, GUITARSET_TRANSCRIPTION
from data_pipelines.sources.magnatagatune import MAGNATAGATUNE
from data_pipelines.sources.medleydb import MEDLEYDB
from data_pipelines.sources.mtg_jamendo import MTG_JAMENDO
from data_pipelines.sources.musiccaps import MUSICCAPS
from data_pipelines.sources.nsynth import NSYNTH
from data_pipelines.sources.salami import SALAMI
from mufun_jax.errors import ManifestError, nearest

DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        BALLROOM,
        DALI,
        DALI_LINES,
        FMA,
        GIANTSTEPS_KEY,
        GROOVE,
        GTZAN,
        GUITARSET,
        GUITARSET_TRANSCRIPTION,
        MAGNATAGATUNE,
        MEDLEYDB,
        MTG_JAMENDO,
        MUSICCAPS,
        NSYNTH,
        SALAMI,
    )
}


def find_data_set(name: str) -> DataSet:
    """The data set of this name.

    Raises:
        ManifestError: there is none; says the nearest name, and all of them.
    """
    if name not in DATA_SETS:
        known = list(DATA_SETS)
        raise ManifestError(f"no data set {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return DATA_SETS[name]

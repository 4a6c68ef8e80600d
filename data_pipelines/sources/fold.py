"""Splits where a data set has none: by a hash of a name, so that what bears one name is never on both sides."""

import hashlib

from data_pipelines.sources.data_set import Split


def split_by_hash(name: str, test: int, validation: int) -> Split:
    """`test` and `validation` in hundredths of all names; letter case does not matter."""
    place = int.from_bytes(hashlib.sha256(name.casefold().encode()).digest()[:8]) % 100
    return "test" if place < test else "validation" if place < test + validation else "train"

"""Files of a folder that strangers made: a link in it may not lead to a file elsewhere."""

import os
from pathlib import Path

from mufun_jax.errors import CheckpointError


def file_in(folder: Path, name: str) -> Path:
    """`folder / name`, which need not exist.

    The hub's cache keeps the files of `snapshots/REVISION/` as links into `blobs/` beside it; those may be followed.

    Raises:
        CheckpointError: it is a link to a file outside the folder.
    """
    path = folder / name
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    if not any(place in real.parents for place in allowed):
        raise CheckpointError(f"{path}: is a link to {real}, outside the folder; copy the file there")
    return path

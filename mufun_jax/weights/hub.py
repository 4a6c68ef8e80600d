"""A model by its name on the Hugging Face hub, where the hub can be reached."""

import re
from pathlib import Path

from mufun_jax.errors import CheckpointError

_FILES = ["*.json", "*.safetensors", "*.txt", "README.md"]  # weights, configs, tokenizers: no code, no pickles
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def local_folder(source: str | Path) -> Path:
    """`source` itself if it is there; else, if it could be a hub's `owner/name`, the folder it is downloaded to.

    Raises:
        CheckpointError: no such folder, and no such model on the hub (or no hub).
    """
    path = Path(source)
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(str(source)):
        raise CheckpointError(f"{source}: no model here: there is no such folder")
    from huggingface_hub import snapshot_download  # here, for it takes long, and a folder needs none of it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(source), allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{source}: no model here: there is no such folder, and the hub did not give it: {reason}"
        ) from error

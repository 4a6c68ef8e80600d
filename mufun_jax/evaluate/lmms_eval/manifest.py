"""What lmms-eval finds at the entry point `lmms_eval.models`: where the model class is.

It is apart from `adapter`, which can only be imported once lmms-eval has been: lmms-eval asks for this while
it is itself being imported.
"""

from typing import Any

MODEL_ID = "mufun"
CLASS_PATH = "mufun_jax.evaluate.lmms_eval.adapter.MuFunLmms"


def manifest() -> Any:
    """lmms-eval's `ModelManifest` of `--model mufun`."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

    return ModelManifest(model_id=MODEL_ID, simple_class_path=CLASS_PATH)

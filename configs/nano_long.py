"""The nano model on whole songs of 390 s: what `mufun experiment context-length` trains, on two CPU cores.

    mufun experiment context-length

It learns notes and excerpts first, as in `configs/nano.py`, then songs of sections, two to six and a half minutes long,
with questions about their structure. A row of the last stage is 130 windows of 3 s, 3,900 audio tokens, and text.
"""

from ml_collections import ConfigDict

from configs.nano import get_config as get_nano


def get_config() -> ConfigDict:
    config = get_nano().to_dict()
    config["model"]["max_windows"] = 130
    config["curriculum"] = ("warmup", "align1", "align2", "structure")
    structure = config["stages"]["finetune_long"] | dict(
        rows=2,
        positions=4224,
        windows=130,
        targets=96,
        longest_audio=390.0,
        mixture={"train_structures": 1.0},
        steps=120,
        learning_rate=1e-3,
    )
    config["stages"] = {name: config["stages"][name] for name in ("warmup", "align1", "align2")}
    config["stages"]["structure"] = structure
    return ConfigDict(config)

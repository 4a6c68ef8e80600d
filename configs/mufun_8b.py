"""The full model, Whisper-large-v3 and Qwen3-8B, through the six stages: for a pod of 256 chips.

    mufun convert from-hf --whisper whisper-large-v3 --qwen3 Qwen3-8B-Base models/start
    mufun train --config configs/mufun_8b.py --workdir WORKDIR --distributed --set data=FOLDER \\
        --set initial_model=models/start --set tokenizer=models/start

What trains in each stage is from arXiv 2508.01178; lengths and optimizer are those of the original's example scripts:
768 and 4,096 positions, AdamW (0.9, 0.999, 1e-8), 2e-5 after 3 % of linear warmup, then a cosine, no weight decay,
clipping at 1.0, bfloat16 compute. Their global batches of 384 and 144 examples are 512 and 256 packed rows here, so
that 256 chips share them evenly. Each stage draws from open data sets as configs/mixtures.py says; `steps` depend on
how much of them is prepared: set them with --set stages.NAME.steps=N.

`data` is the folder in which `mufun prepare` wrote the sets. The mesh splits parameters and rows over 256 chips, one
row of a long stage to each; `mufun plan` tells what that takes. configs/nano.py is the same file with small numbers.
"""

from ml_collections import ConfigDict

from configs.mixtures import MIXTURES
from mufun_jax.config_file import to_json
from mufun_jax.model.presets import preset


def get_config() -> ConfigDict:
    short = dict(rows=512, positions=768, windows=2, targets=512, longest_audio=60.0)
    whole = dict(rows=256, positions=4096, windows=13, targets=1024, longest_audio=390.0)
    return ConfigDict(
        dict(
            model=to_json(preset("mufun_8b")),
            tokenizer="tokenizer",
            data="data",
            compute_dtype="bfloat16",
            loader_workers=16,
            mesh=dict(fsdp=256),
            optimizer=dict(b1=0.9, b2=0.999, epsilon=1e-8, weight_decay=0.0, clip_norm=1.0),
            checkpoint=dict(every_steps=500, keep=2),
            curriculum=("warmup", "align1", "align2", "context_extend", "finetune_short", "finetune_long"),
            stages=dict(
                warmup=dict(
                    **short,
                    mixture=MIXTURES["warmup"],
                    template="warmup",
                    encoder="frozen",
                    decoder="frozen",
                    steps=2000,
                ),
                align1=dict(**short, mixture=MIXTURES["align1"], steps=4000),
                align2=dict(**short, mixture=MIXTURES["align2"], steps=4000),
                context_extend=dict(**whole, mixture=MIXTURES["context_extend"], steps=2000),
                finetune_short=dict(**short, mixture=MIXTURES["finetune_short"], steps=2000),
                finetune_long=dict(**whole, mixture=MIXTURES["finetune_long"], steps=2000),
            ),
        )
    )

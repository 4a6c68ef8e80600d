"""Beyond the original: whole albums. Two more stages of the full model, 20 and 60 minutes of audio in one sequence.

    mufun plan --config configs/mufun_8b_long.py --topology v5p:8x8x8
    mufun train --config configs/mufun_8b_long.py --workdir WORKDIR --distributed --set data=FOLDER \\
        --set initial_model=runs/mufun_8b/checkpoint --set tokenizer=runs/mufun_8b/checkpoint

Audio is 10 tokens a second: 12,000 and 36,000 of them beside the text. A sequence is split over the 16 chips of the
mesh axis `context`, and there are 32 sequences at once, on 512 chips. The first stage alone fits smaller chips:

    mufun plan --config configs/mufun_8b_long.py --stage twenty_minutes --topology v5e:16x16 \\
        --set "mesh={'fsdp': 64, 'context': 4}" --set stages.twenty_minutes.rows=64
"""

from ml_collections import ConfigDict

from configs.mixtures import MIXTURES
from mufun_jax.config_file import to_json
from mufun_jax.model.presets import preset


def get_config() -> ConfigDict:
    stage = dict(rows=32, targets=512, mixture=MIXTURES["finetune_long"], steps=500, remat="layer")
    return ConfigDict(
        dict(
            model=to_json(preset("mufun_8b_60min")),
            tokenizer="tokenizer",
            data="data",
            compute_dtype="bfloat16",
            loader_workers=16,
            mesh=dict(fsdp=32, context=16),
            optimizer=dict(b1=0.9, b2=0.999, epsilon=1e-8, weight_decay=0.0, clip_norm=1.0),
            checkpoint=dict(every_steps=100, keep=2),
            curriculum=("twenty_minutes", "sixty_minutes"),
            stages=dict(
                twenty_minutes=dict(**stage, positions=12_288, windows=40, longest_audio=1200.0),
                sixty_minutes=dict(**stage, positions=36_864, windows=120, longest_audio=3600.0),
            ),
        )
    )

"""The whole curriculum, small: what `make demo` trains, on two CPU cores, in about four minutes.

    mufun prepare score-corpus --out runs/demo/data
    mufun train --config configs/nano.py --workdir runs/demo

Expected: on held-out pieces, pitch and instrument well above all baselines (the README shows a run's table).
The stages are those of the full model, and what trains in each; `configs/mufun_8b.py` differs in sizes and data.
"""

from ml_collections import ConfigDict

from mufun_jax.config_file import to_json
from mufun_jax.model.presets import preset


def get_config() -> ConfigDict:
    short = dict(
        rows=6, positions=384, windows=4, targets=64, longest_audio=12.0, warmup_fraction=0.03, remat="save_dots"
    )
    whole = dict(
        rows=2, positions=768, windows=14, targets=64, longest_audio=39.0, warmup_fraction=0.03, remat="save_dots"
    )
    everything = dict(encoder="full", connector="full", decoder="full")
    return ConfigDict(
        dict(
            model=to_json(preset("nano")),
            tokenizer="nano",
            data="runs/demo/data",
            compute_dtype="float32",
            seed=0,
            mesh=dict(data=2, fsdp=1, tensor=1, context=1, simulated_devices=2),
            optimizer=dict(b1=0.9, b2=0.98, epsilon=1e-8, weight_decay=0.0, clip_norm=1.0),
            checkpoint=dict(every_steps=100, keep=2),
            curriculum=("warmup", "align1", "align2", "context_extend", "finetune_short", "finetune_long"),
            stages=dict(
                warmup=dict(
                    **short,
                    mixture={"train_transcription": 1.0},
                    template="warmup",
                    encoder="frozen",
                    connector="full",
                    decoder="frozen",
                    steps=12,
                    learning_rate=1e-3,
                ),
                align1=dict(**short, **everything, mixture={"train_notes": 1.0}, steps=130, learning_rate=1e-3),
                align2=dict(
                    **short,
                    **everything,
                    mixture={"train_notes": 1.0, "train_excerpts": 1.0},
                    steps=100,
                    learning_rate=1e-3,
                ),
                context_extend=dict(**whole, **everything, mixture={"train_songs": 1.0}, steps=40, learning_rate=7e-4),
                finetune_short=dict(
                    **short,
                    **everything,
                    mixture={"train_notes": 2.0, "train_excerpts": 1.0},
                    steps=110,
                    learning_rate=1e-3,
                ),
                finetune_long=dict(
                    **whole,
                    **everything,
                    mixture={"train_notes": 2.0, "train_excerpts": 2.0, "train_songs": 1.0},
                    steps=110,
                    learning_rate=7e-4,
                ),
            ),
        )
    )

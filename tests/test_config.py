"""The configuration: what a user gets wrong is named, and no option is there for nothing."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest

import mufun_jax
from mufun_jax import config as config_module
from mufun_jax.config import (
    CheckpointConfig,
    DecoderConfig,
    EncoderConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    StageConfig,
)
from mufun_jax.config_file import difference, load_run_config, to_json, validate
from mufun_jax.errors import ConfigError
from tests.tiny import tiny_model

ROOT = Path(mufun_jax.__file__).parent.parent
CONFIGS = sorted(
    path.name for path in (ROOT / "configs").glob("*.py") if path.name not in ("__init__.py", "mixtures.py")
)
ALL_KINDS = [
    kind
    for kind in vars(config_module).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == "mufun_jax.config"
]

CONFIG = """
from ml_collections import ConfigDict
from mufun_jax.config_file import to_json
from mufun_jax.model.presets import preset

def get_config():
    stage = dict(mixture=dict(notes=1.0), steps=3, rows=2, positions=192, windows=4, targets=32, longest_audio=2.0)
    return ConfigDict(dict(model=to_json(preset("nano")), tokenizer="nano", data="corpus", curriculum=("align", "long"),
                           stages=dict(align=dict(stage), long=dict(stage, rows=4))))
"""


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "run.py").write_text(CONFIG)
    return tmp_path / "run.py"


def test_a_config_file_and_its_settings(path):
    run = load_run_config(path)
    assert (run.curriculum, run.stages["align"].rows, run.compute_dtype) == (("align", "long"), 2, "bfloat16")
    run = load_run_config(
        path,
        [
            "seed=7",
            "data=gs://bucket/a=b",
            "stages.long.learning_rate=1e-5",
            "stages.align.encoder=frozen",
            "curriculum=('long',)",
            "stages.align.remat=none",
            "stages.align.mixture.songs=2.5",
        ],
    )
    assert (run.seed, run.data, run.curriculum, run.stages["align"].remat) == (7, "gs://bucket/a=b", ("long",), "none")
    assert run.stages["long"].learning_rate == 1e-5
    assert run.stages["align"].learning_rate == 2e-5
    assert run.stages["align"].trained_parts == ("connector", "decoder")
    assert run.stages["align"].mixture == {"notes": 1.0, "songs": 2.5}


@pytest.mark.parametrize(
    "setting, parts",
    [
        ("sed=1", ["sed", "did you mean 'seed'?"]),
        ("stages.align.learning_rat=1", ["stages.align.learning_rat", "did you mean 'learning_rate'?"]),
        ("stages.aling.steps=1", ["'aling'", "did you mean 'align'?"]),
        ("model.encoder.taps_=1", ["model.encoder.taps_", "did you mean 'taps'?"]),
        ("model.encodr.width=1", ["'encodr'", "did you mean 'encoder'?"]),
        ("stages.align.rows=two", ["stages.align.rows", "'two'"]),
        ("stages.align.template=wramup", ["stages.align.template", "'train' or 'warmup'", "'wramup'"]),
        ("stages.align.steps=0", ["stages.align.steps", "greater than 0", "got 0"]),
        ("stages.align.learning_rate=-1", ["stages.align.learning_rate", "greater than 0", "got -1"]),
        ("stages.align.warmup_fraction=1.5", ["stages.align.warmup_fraction", "less than or equal to 1", "1.5"]),
        ("stages.align.mixture={}", ["stages.align.mixture is empty"]),
        ("stages.align.mixture.notes=0", ["stages.align.mixture.notes", "greater than 0"]),
        ("stages.align.rows=2.5", ["stages.align.rows", "2.5"]),
        ("seed=-1", ["seed", "greater than or equal to 0", "-1"]),
        ("curriculum=('alignn', 'long')", ["curriculum", "'alignn'", "did you mean 'align'?"]),
        ("curriculum=()", ["curriculum is empty"]),
        ("mesh={'fsdp': 3}", ["model.encoder.width 128", "mesh.fsdp 3", "nearest: 2"]),
        ("mesh={'tensor': 4}", ["model.decoder.kv_heads 2", "mesh.tensor 4", "nearest: 2"]),
        ("mesh={'context': 5}", ["stages.align.positions 192", "2 x mesh.context = 10", "nearest: 190"]),
        ("stages.align.accumulate=3", ["rows 2", "3 parts"]),
        ("stages.align.longest_audio=99", ["stages.align.longest_audio 99 s", "39 s", "max_windows 13"]),
        ("lora={'targets': ()}", ["lora.targets is empty"]),
        ("mesh={'data': 3}", ["stages.align.rows 2", "= 3"]),
        ("stages.long.windows=9", ["stages.long.windows 9 x 30", "stages.long.positions 192"]),
        ("model.encoder.heads=7", ["width 128", "7 heads"]),
        ("model.encoder.taps=(0, 2)", ["taps (0, 2)", "last layer, 4"]),
        ("model.encoder.taps=(2, 0, 4)", ["taps (2, 0, 4)"]),
        ("model.encoder.window_samples=16001", ["window_samples 16001"]),
        ("model.decoder.kv_heads=3", ["4 heads", "3 key/value heads"]),
        ("seed", ["--set seed", "key=value"]),
    ],
)
def test_what_is_wrong_is_named(path, setting, parts):
    with pytest.raises(ConfigError) as error:
        load_run_config(path, [setting])
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_a_stage_in_which_nothing_trains_is_an_error(path):
    settings = [f"stages.align.{part}=frozen" for part in ("encoder", "connector", "decoder")]
    with pytest.raises(ConfigError, match="all frozen"):
        load_run_config(path, settings)


def test_a_key_that_is_missing_is_named(path):
    path.write_text(CONFIG.replace('tokenizer="nano", ', ""))
    with pytest.raises(ConfigError, match=r"run\.py: the key 'tokenizer' is missing"):
        load_run_config(path)


def test_a_config_file_that_is_missing_or_empty(path):
    with pytest.raises(ConfigError, match=r"runn\.py: no such config file.*did you mean.*run\.py"):
        load_run_config(path.with_name("runn.py"))
    with pytest.raises(ConfigError, match="no such config file"):
        load_run_config(path.parent / "nowhere" / "run.py")
    path.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="no function get_config"):
        load_run_config(path)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_config_loads_and_survives_its_json(name):
    run = load_run_config(ROOT / "configs" / name)
    stages = {"mufun_8b_long.py": 2, "nano_long.py": 4}  # the two beyond the curriculum; songs of 390 s after notes
    assert len(run.curriculum) == stages.get(name, 6)
    stored = json.loads(json.dumps(to_json(run)))
    assert validate(RunConfig, stored, name) == run
    assert difference(run, validate(RunConfig, stored, name)) is None


def test_a_difference_names_the_key():
    one = tiny_model()
    changed = dataclasses.replace(one, decoder=dataclasses.replace(one.decoder, layers=9))
    assert difference(one, one) is None
    assert difference(one, changed) == "decoder.layers: 3 is not 9"
    stages = {name: StageConfig({"a": 1.0}, 1, 50, 1, 1, 1.0, steps=1) for name in ("x", "y")}
    run = RunConfig(one, "nano", "data", stages, ("x",))
    fewer = dataclasses.replace(run, stages={"x": stages["x"]})
    said = difference(run, fewer)
    assert said is not None and said.startswith("stages.y.")
    assert (said := difference(fewer, run)) is not None and said.startswith("stages.y.")


def test_derived_sizes():
    encoder = EncoderConfig(mel_bins=128, width=1280, layers=32, heads=20, mlp_width=5120, taps=(0, 7, 15, 32))
    assert (encoder.window_samples, encoder.frames, encoder.tokens_per_window) == (480_000, 1500, 300)
    decoder = DecoderConfig(8, 8, 1, 1, 1, 8, 8, True)
    assert ModelConfig(encoder, 8, decoder).max_seconds == 390.0
    assert MeshConfig(2, 3, 4, 5).shape == (2, 3, 4, 5)
    assert (OptimizerConfig().b2, CheckpointConfig().keep) == (0.999, 2)


def test_every_option_is_read_somewhere():
    """As an attribute, in code that is not the configuration's own; a property of the configuration is read through."""
    read, properties = set(), {}
    for package in ("mufun_jax", "data_pipelines"):
        for file in (ROOT / package).rglob("*.py"):
            tree = ast.parse(file.read_text())
            if file == Path(str(config_module.__file__)):
                properties = _properties(tree)
            else:
                read |= _attributes(tree)
    for name, attributes in properties.items():
        if name in read:
            read |= attributes
    fields = {f"{kind.__name__}.{field.name}" for kind in ALL_KINDS for field in dataclasses.fields(kind)}
    assert len(ALL_KINDS) >= 8 and len(fields) >= 50
    assert sorted(field for field in fields if field.split(".")[1] not in read) == []


def _attributes(tree: ast.AST) -> set[str]:
    """Names that are read as `something.name`, unless something is a module's or a parser's."""
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def _properties(tree: ast.Module) -> dict[str, set[str]]:
    return {
        function.name: _attributes(function)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and any(isinstance(decorator, ast.Name) and decorator.id == "property" for decorator in function.decorator_list)
    }

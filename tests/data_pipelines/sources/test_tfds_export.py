"""Examples as the builders of tensorflow_datasets yield them become files that the ordinary readers take."""

import io
import json
import sys
from types import ModuleType

import numpy as np
import pytest
import soundfile

from data_pipelines.sources.groove import GROOVE
from data_pipelines.sources.gtzan import GENRES, GTZAN
from data_pipelines.sources.nsynth import NSYNTH, QUALITIES
from data_pipelines.sources.tfds_export import export_tfds, groove_files, gtzan_files, nsynth_files
from mufun_jax.errors import UserError
from tests.data_pipelines.sources.folders import answers, read_checked

TONE = np.sin(np.arange(1600) / 10)


def gtzan_example(label: int, number: int) -> dict:
    """Features: audio int64 (None,), label int64 (), audio/filename bytes."""
    audio = (TONE * 20_000).astype(np.int64)
    return {"audio": audio, "label": np.int64(label), "audio/filename": f"{GENRES[label]}.{number:05d}.wav".encode()}


def nsynth_example(name: str, pitch: int, *qualities: str) -> dict:
    """Features: audio float32 (64000,), classes int64, qualities a dict of bools, in the builder's order."""
    order = "bright dark distortion fast_decay long_release multiphonic nonlinear_env percussive reverb tempo-synced"
    return {
        "id": name.encode(),
        "audio": np.resize(TONE, 64_000).astype(np.float32),
        "pitch": np.int64(pitch),
        "velocity": np.int64(75),
        "instrument": {"label": np.int64(7), "family": np.int64(9), "source": np.int64(2)},
        "qualities": {quality: np.bool_(quality in qualities) for quality in order.split()},
    }


def groove_example(name: str, drummer: int = 2) -> dict:
    """Features of full-16000hz: audio float32 (None,) in [-0.5, 0.5], bpm int32, classes int64, strings bytes."""
    return {
        "id": name.encode(),
        "drummer": np.int64(drummer),
        "type": np.int64(0),
        "bpm": np.int32(138),
        "time_signature": np.int64(1),
        "style": {"primary": np.int64(5), "secondary": b"groove1"},
        "midi": b"MThd\x00\x00",
        "audio": np.array([0.0, 0.25, -0.5, 0.5, 1 / 2**16] * 320, np.float32),
    }


class FakeDatasets(ModuleType):
    """Stands in for tensorflow_datasets: `load` and `as_numpy`, and what they were asked for."""

    def __init__(self, examples: dict[tuple[str, str], list[dict]]):
        super().__init__("tensorflow_datasets")
        self.examples, self.asked = examples, []

    def load(self, name: str, *, split: str, data_dir: str | None):
        self.asked.append((name, split, data_dir))
        return iter(self.examples[name, split])

    def as_numpy(self, loaded):
        return list(loaded)


@pytest.fixture
def fake(monkeypatch):
    def install(**sets: dict[str, list[dict]]) -> FakeDatasets:
        names = {"gtzan": "gtzan", "nsynth": "nsynth/full", "groove": "groove/full-16000hz"}
        datasets = FakeDatasets(
            {(names[name], split): ex for name, splits in sets.items() for split, ex in splits.items()}
        )
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", datasets)
        monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))
        return datasets

    return install


def test_gtzan(fake, tmp_path):
    datasets = fake(gtzan={"train": [gtzan_example(label, number) for label in range(10) for number in (5, 99)]})
    assert export_tfds("gtzan", (), tmp_path / "out", tmp_path / "tfds") == 20
    assert datasets.asked == [("gtzan", "train", str(tmp_path / "tfds"))]
    clips = read_checked(GTZAN, tmp_path / "out")
    assert answers(clips["gtzan-disco.00005"]) == {"genre": ("disco",)}
    samples, rate = soundfile.read(tmp_path / "out/genres/disco/disco.00005.wav", dtype="int16")
    assert rate == 22_050
    np.testing.assert_array_equal(samples, (TONE * 20_000).astype(np.int64))


def test_nsynth(fake, tmp_path):
    name = "synth_lead_synthetic_033-022-050"
    notes = [nsynth_example(name, 22, "dark", "tempo-synced"), nsynth_example("bass_electronic_001-060-075", 60)]
    fake(nsynth={"train": notes, "valid": [], "test": notes[:1]})
    assert export_tfds("nsynth", ("train",), tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["nsynth-train"]
    clips = read_checked(NSYNTH, tmp_path)
    assert list(clips) == ["nsynth-bass_electronic_001-060-075", f"nsynth-{name}"]
    assert answers(clips[f"nsynth-{name}"]) == {
        "instrument": ("synth lead",),
        "pitch": ("Bb0",),
        "source": ("synthetic",),
        "quality": ("dark", "tempo-synced"),
    }
    row = json.loads((tmp_path / "nsynth-train/examples.json").read_text())[name]
    assert (row["velocity"], row["instrument_str"]) == (75, "synth_lead_synthetic_033")
    samples, rate = soundfile.read(tmp_path / f"nsynth-train/audio/{name}.wav", dtype="float32")
    assert (rate, samples.shape) == (16_000, (64_000,))
    np.testing.assert_allclose(samples, np.resize(TONE, 64_000), atol=1.01 / 2**15)


def test_every_quality_of_nsynth_is_read(fake, tmp_path):
    every = tuple(nsynth_example("a-1", 60)["qualities"])
    fake(nsynth={"test": [nsynth_example("bass_electronic_001-060-075", 60, *every)]})
    export_tfds("nsynth", ("test",), tmp_path)
    (clip,) = NSYNTH.read(tmp_path)
    assert set(answers(clip)["quality"]) == set(QUALITIES) and clip.split == "test"


def test_groove(fake, tmp_path):
    examples = {
        "train": [groove_example("drummer3/session2/4")],
        "validation": [],
        "test": [groove_example("drummer1/eval_session/1", 0)],
    }
    fake(groove=examples)
    assert export_tfds("groove", (), tmp_path) == 2
    clips = read_checked(GROOVE, tmp_path)
    clip = clips["groove-drummer1-eval_session-1"]
    assert (clip.split, clip.audio) == ("test", "groove/drummer1/eval_session/1_funk-groove1_138_beat_4-4.wav")
    assert answers(clip) == {"style": ("funk",), "tempo": ("138",), "meter": ("4/4",)}
    samples, rate = soundfile.read(tmp_path / clip.audio, dtype="int16")
    assert rate == 16_000 and samples[:5].tolist() == [0, 16_384, -32_768, 32_767, 1]
    assert (tmp_path / clip.audio).with_suffix(".mid").read_bytes() == b"MThd\x00\x00"
    assert (tmp_path / "groove/info.csv").read_text().splitlines()[1:] == [
        "drummer1,drummer1/eval_session,drummer1/eval_session/1,funk/groove1,138,beat,4-4,"
        "drummer1/eval_session/1_funk-groove1_138_beat_4-4.mid,drummer1/eval_session/1_funk-groove1_138_beat_4-4.wav,"
        "0.1,test",
        "drummer3,drummer3/session2,drummer3/session2/4,funk/groove1,138,beat,4-4,"
        "drummer3/session2/4_funk-groove1_138_beat_4-4.mid,drummer3/session2/4_funk-groove1_138_beat_4-4.wav,0.1,train",
    ]
    whole = (tmp_path / "groove/info.csv").read_bytes()
    export_tfds("groove", ("test",), tmp_path)
    assert (tmp_path / "groove/info.csv").read_bytes() == whole, "rows of other splits stay"


def test_an_export_goes_on(fake, tmp_path):
    fake(gtzan={"train": [gtzan_example(0, 0), gtzan_example(0, 1)]})
    export_tfds("gtzan", ("train",), tmp_path)
    kept, cut = (tmp_path / f"genres/blues/blues.0000{n}.wav" for n in (0, 1))
    whole, inode = cut.read_bytes(), kept.stat().st_ino
    cut.write_bytes(whole[:100])
    assert export_tfds("gtzan", ("train",), tmp_path) == 2
    assert cut.read_bytes() == whole and kept.stat().st_ino == inode
    assert sorted(path.name for path in cut.parent.iterdir()) == ["blues.00000.wav", "blues.00001.wav"]


def test_metadata_come_last(fake, tmp_path):
    broken = nsynth_example("bass_electronic_001-060-075", 60) | {"audio": np.full(64_000, np.nan, np.float32)}
    fake(nsynth={"train": [nsynth_example("bass_electronic_001-061-075", 61), broken]})
    with pytest.raises(UserError, match="not one row of finite numbers"):
        export_tfds("nsynth", ("train",), tmp_path)
    assert [path.name for path in (tmp_path / "nsynth-train").iterdir()] == ["audio"]


@pytest.mark.parametrize(
    ("convert", "example", "message"),
    [
        (gtzan_files, gtzan_example(0, 0) | {"audio/filename": b"../blues.00000.wav"}, "named '../blues.00000.wav'"),
        (gtzan_files, gtzan_example(0, 0) | {"label": np.int64(3)}, "of the genre disco is named 'blues.00000.wav'"),
        (gtzan_files, gtzan_example(0, 0) | {"label": np.int64(10)}, "the label 10, but there are only 10"),
        (nsynth_files, nsynth_example("../x-1", 60), r"named '\.\./x-1'"),
        (groove_files, groove_example("drummer1/../1"), r"named 'drummer1/\.\./1'"),
        (
            groove_files,
            groove_example("drummer1/session1/1") | {"style": {"primary": 0, "secondary": b"../x"}},
            "style",
        ),
    ],
)
def test_examples_of_something_else_are_refused(convert, example, message):
    with pytest.raises(UserError, match=message):
        convert(example, "train")


def test_loud_samples_are_clipped():
    example = gtzan_example(0, 0) | {"audio": np.array([40_000, -40_000, 5], np.int64)}
    (content,) = gtzan_files(example, "train").files.values()
    assert soundfile.read(io.BytesIO(content), dtype="int16")[0].tolist() == [32_767, -32_768, 5]


def test_misspelt_names(tmp_path):
    with pytest.raises(UserError, match=r"no export of 'gtzen' \(did you mean 'gtzan'\?\)"):
        export_tfds("gtzen", (), tmp_path)
    with pytest.raises(UserError, match=r"nsynth has no split 'validation' there.*it has train, valid, test"):
        export_tfds("nsynth", ("validation",), tmp_path)


@pytest.mark.parametrize(
    ("package", "extra"), [("tensorflow_datasets", r"mufun_jax\[datasets\]"), ("tensorflow", "tensorflow-cpu")]
)
def test_what_to_install(fake, monkeypatch, tmp_path, package, extra):
    fake(gtzan={"train": []})
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(UserError, match=rf"the export needs {package} \(.*pip install '{extra}'"):
        export_tfds("gtzan", ("train",), tmp_path)

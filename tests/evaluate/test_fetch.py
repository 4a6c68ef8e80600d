"""Fetching, by Hugging Face's library from a folder in the hub's place, and by a stand-in for what it may meet."""

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate import fetch as fetching
from mufun_jax.evaluate.benchmarks.registry import BENCHMARKS, read_benchmark
from mufun_jax.evaluate.fetch import fetch
from tests.evaluate.benchmarks.test_mucue import ROW
from tests.evaluate.synthetic_mucue import SETS, write_mucue


class FakeDataset:
    """A split of the `datasets` library, as far as it is used."""

    def __init__(self, rows, casts=()):
        self.rows, self.casts = rows, casts

    def cast_column(self, column, feature):
        return FakeDataset(self.rows, (*self.casts, (column, feature)))

    def to_parquet(self, path):
        assert self.casts == (("audio", SimpleNamespace(decode=False)),)
        pq.write_table(pa.Table.from_pylist(self.rows), path)


@pytest.fixture
def library(monkeypatch):
    """Stands for `datasets`: two sets of MuCUE. `asked` is what was loaded."""
    module: Any = ModuleType("datasets")
    exceptions: Any = ModuleType("datasets.exceptions")
    exceptions.DatasetsError = type("DatasetsError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "datasets.exceptions", exceptions)
    module.asked = []
    module.Audio = lambda decode: SimpleNamespace(decode=decode)

    def load_dataset(name, revision):
        module.asked.append((name, revision))
        return {"gtzan": FakeDataset([ROW] * 3), "nsyn_pitch": FakeDataset([ROW])}

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder in the place of MuCUE's repository, whose Parquet files say as the hub's do that they hold audio."""
    write_mucue(tmp_path / "hub", layout="parquet")
    for path in (tmp_path / "hub" / "data").iterdir():
        table = pq.read_table(path)
        text = {"dtype": "string", "_type": "Value"}
        features: dict[str, Any] = dict.fromkeys(table.column_names, text) | {"audio": {"_type": "Audio"}}
        features["time_seg"] = {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "Sequence"}
        said = json.dumps({"info": {"features": features}})
        pq.write_table(table.replace_schema_metadata({"huggingface": said}), path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(fetching._ON_HUB, "mucue", fetching._OnHub(str(tmp_path / "hub"), "audio"))
    return tmp_path / "hub"


def test_the_library_itself(hub, tmp_path):
    paths = fetch("mucue", tmp_path / "new")
    assert [path.name for path in paths] == [f"{name}-00000-of-00001.parquet" for name in sorted(SETS)]
    there, fetched = read_benchmark("mucue", hub), read_benchmark("mucue", tmp_path / "new")
    asked = [[(q.id, q.prompt, q.options, q.answer, q.segment) for q in each.questions] for each in (there, fetched)]
    assert asked[0] == asked[1]
    assert [q.song.load() for q in there.questions] == [q.song.load() for q in fetched.questions], "not decoded"


def test_the_library_itself_with_a_damaged_file(hub, tmp_path):
    (hub / "data" / "gtzan_key-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=rf"^{hub}: the hub did not give it: .*[Pp]arquet"):
        fetch("mucue", tmp_path / "new")
    assert list((tmp_path / "new" / "data").iterdir()) == []


def test_what_is_fetched_can_be_read(tmp_path, library):
    paths = fetch("mucue", tmp_path / "new")
    assert [path.name for path in paths] == ["gtzan-00000-of-00001.parquet", "nsyn_pitch-00000-of-00001.parquet"]
    assert library.asked == [("Yi3852/MuCUE", "2fd45ed1f7d462da22f1dce1018d6599d3696d68")]
    benchmark = read_benchmark("mucue", tmp_path / "new")
    assert (len(benchmark.questions), benchmark.bad_rows) == (4, ())
    assert benchmark.questions[0].song.load() == ROW["audio"]["bytes"]
    assert sorted(path.name for path in (tmp_path / "new" / "data").iterdir()) == [path.name for path in paths]


def test_what_is_there_is_left_and_what_is_torn_is_none(tmp_path, library, monkeypatch):
    (tmp_path / "data").mkdir()
    there = tmp_path / "data" / "gtzan-00000-of-00001.parquet"
    there.write_bytes(b"mine")
    assert fetch("mucue", tmp_path)[0] == there
    assert there.read_bytes() == b"mine"
    (tmp_path / "data" / "nsyn_pitch-00000-of-00001.parquet").unlink()

    def torn(self, path):
        with open(path, "wb") as file:
            file.write(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeDataset, "to_parquet", torn)
    with pytest.raises(KeyboardInterrupt):
        fetch("mucue", tmp_path)
    assert list((tmp_path / "data").glob("*.parquet")) == [there]


def test_no_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        UserError, match=r"fetching mucue needs the library 'datasets'.*: pip install 'mufun_jax\[hub\]'; or"
    ):
        fetch("mucue", tmp_path)


def test_no_hub(tmp_path, library):
    def unreachable(name, revision):
        raise ConnectionError("Couldn't reach the hub\nat all")

    library.load_dataset = unreachable
    with pytest.raises(UserError, match=r"^Yi3852/MuCUE: the hub did not give it: Couldn't reach the hub$"):
        fetch("mucue", tmp_path)


def test_every_benchmark_is_fetched_or_says_how_to_get_it(tmp_path, library):
    library.load_dataset = lambda name, revision: {}
    for name in BENCHMARKS:
        if name in ("mucue", "mmau", "hummusqa"):
            assert fetch(name, tmp_path) == []
        else:
            with pytest.raises(UserError, match=rf"^{name} cannot be fetched: "):
                fetch(name, tmp_path)
    with pytest.raises(UserError, match=r"no benchmark 'mucoe' \(did you mean 'mucue'\?\)"):
        fetch("mucoe", tmp_path)

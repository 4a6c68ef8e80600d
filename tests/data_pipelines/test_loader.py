import collections
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.encode import Budget, ExampleEncoder
from data_pipelines.loader import Place, Rows, count_steps, load_batches, open_stage
from data_pipelines.manifest import Example
from data_pipelines.prepared_set import PreparedSet
from data_pipelines.record import Encoding, Record, decode_audio, encode_audio
from data_pipelines.stage_data import measure_set, write_data_report
from data_pipelines.tf_example import RecordError
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import ConfigError, ManifestError
from mufun_jax.text.conversation import Turn
from mufun_jax.text.tokenizer import load_tokenizer
from tests.train.tiny_run import tiny_run, write_tiny_corpus

SONG = (8000 * np.sin(np.arange(5 * SAMPLE_RATE) / 20)).astype(np.int16)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("nano")


def encoder_of(run, tokenizer, **changes):
    stage = run.stages["align"]
    budget = Budget(**{"positions": stage.positions, "windows": stage.windows, "targets": stage.targets, **changes})
    return ExampleEncoder(tokenizer, run.model.encoder, budget, "train", longest_audio=9.0)


def question(segment=None, text="<audio>\nHigh?", files=1):
    paths = tuple(Path(f"song{n}.wav") for n in range(files))
    return Example("one", paths, (segment,) * files, (Turn(text, "low"),))


def record_of(*files, encoding: Encoding = "flac"):
    return Record(tuple(encode_audio(file, encoding) for file in files), encoding, ())


def batches_of(run, data, stage="align", **where):
    return load_batches(run, run.stages[stage], data, **where)


def same(ours, theirs):
    for name in ("tokens", "samples", "audio_slot", "targets", "segment_ids"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


# --- one example ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["flac", "int16"])
def test_an_example_is_its_audio_and_its_text(tiny_corpus, tokenizer, encoding):
    run = tiny_run(tiny_corpus)
    encoder = encoder_of(run, tokenizer)
    encoded = encoder.encode(question((1.0, 3.0)), record_of(SONG, encoding=encoding))
    np.testing.assert_array_equal(encoded.samples, SONG[SAMPLE_RATE : 3 * SAMPLE_RATE].reshape(2, SAMPLE_RATE))
    assert (encoded.audio_slot >= 0).sum() == 2 * run.model.encoder.tokens_per_window
    assert encoded.dropped_windows == 0
    text = encoded.tokens[encoded.audio_slot < 0]
    assert tokenizer.decode(text.tolist()).endswith("USER: \nHigh? ASSISTANT: low")
    assert tokenizer.decode(encoded.targets.tolist()) == " low"
    assert encoded.targets[-1] == tokenizer.end_of_turn
    np.testing.assert_array_equal(encoded.tokens[encoded.target_index + 1], encoded.targets)


def test_two_songs_are_heard_in_their_order(tiny_corpus, tokenizer):
    encoder = encoder_of(tiny_run(tiny_corpus), tokenizer, windows=9)
    both = encoder.encode(question((0.0, 1.0), "<audio><audio>Same?", files=2), record_of(SONG, SONG[::-1].copy()))
    np.testing.assert_array_equal(both.samples[0], SONG[:SAMPLE_RATE])
    np.testing.assert_array_equal(both.samples[1], SONG[::-1][:SAMPLE_RATE])


@pytest.mark.parametrize("changes", [{}, {"windows": 3}, {"positions": 110}, {"windows": 9}])
@pytest.mark.parametrize("segment", [None, (0.5, 2.75), (4.0, 99.0)])
def test_what_is_measured_is_what_is_encoded(tiny_corpus, tokenizer, changes, segment):
    encoder = encoder_of(tiny_run(tiny_corpus), tokenizer, **changes)
    size = encoder.measure(question(segment), [len(SONG)])
    encoded = encoder.encode(question(segment), record_of(SONG))
    assert (size.positions, size.windows, size.targets) == tuple(
        len(part) for part in (encoded.tokens, encoded.samples, encoded.targets)
    )
    assert size.dropped_windows == encoded.dropped_windows
    assert 0 < size.seconds <= size.windows


def test_too_much_audio_is_left_out_by_whole_windows_and_text_is_not(tiny_corpus, tokenizer):
    run = tiny_run(tiny_corpus)
    tokens = run.model.encoder.tokens_per_window
    whole = encoder_of(run, tokenizer, windows=9).encode(question(), record_of(SONG))
    assert (len(whole.samples), whole.dropped_windows) == (5, 0)
    for changes, kept in (({"windows": 3}, 3), ({"windows": 9, "positions": len(whole.tokens) - tokens - 1}, 3)):
        short = encoder_of(run, tokenizer, **changes).encode(question(), record_of(SONG))
        assert (len(short.samples), short.dropped_windows) == (kept, 5 - kept)
        np.testing.assert_array_equal(short.samples, whole.samples[:kept])
        np.testing.assert_array_equal(short.tokens[short.audio_slot < 0], whole.tokens[whole.audio_slot < 0])
        np.testing.assert_array_equal(short.targets, whole.targets)
    with pytest.raises(ManifestError, match=r"one: \d+ tokens of text and 1 windows of 10 tokens do not fit into 40"):
        encoder_of(run, tokenizer, positions=40).measure(question(), [len(SONG)])
    with pytest.raises(ManifestError, match=r"one: \d+ target tokens, a row has 1"):
        encoder_of(run, tokenizer, targets=1).measure(question(), [len(SONG)])
    with pytest.raises(ManifestError, match=r"1 <audio> in its text, 1 files named, 2 there"):
        encoder_of(run, tokenizer).measure(question(), [1, 1])


# --- a stage -------------------------------------------------------------------------------------------------------


def test_what_fits_no_row_is_left_out_counted_and_named(tiny_corpus, tokenizer, tmp_path):
    run = replace(tiny_run(tiny_corpus, "max_bad_fraction=1.0"), data=str(tiny_corpus))
    encoder = encoder_of(run, tokenizer)
    prepared = PreparedSet(tiny_corpus, "songs")
    measured = measure_set(prepared, encoder)
    assert len(measured.places) == 4 and not measured.left_out
    assert measured.dropped_windows.tolist() == [1, 1, 1, 1], "each song has five windows, a row four"
    tight = measure_set(prepared, encoder_of(run, tokenizer, targets=1))
    assert len(tight.places) == 0
    assert [bad.where for bad in tight.left_out] == [f"songs, record {n} (songs{n})" for n in range(4)]
    with pytest.raises(ManifestError, match=r"16 of 16 examples fit no row, more than max_bad_fraction 0.001: notes"):
        tight_run = tiny_run(tiny_corpus, "stages.align.targets=1")
        open_stage(tight_run, tight_run.stages["align"], tokenizer, 0)
    data = open_stage(run, run.stages["align"], tokenizer, 0)
    write_data_report(tmp_path / "data" / "align.json", data)
    report = json.loads((tmp_path / "data" / "align.json").read_text())
    assert report["songs"] == {
        "examples": 4,
        "hours": round(8 / 3600, 4),
        "duplicates_left_out": 0,
        "dropped_windows": 0,
        "left_out": [],
    }


def test_a_missing_set_names_the_nearest(tiny_corpus):
    with pytest.raises(ManifestError, match=r"no prepared set \(did you mean 'notes'\?\); there are: notes, songs"):
        PreparedSet(tiny_corpus, "note")
    with pytest.raises(ManifestError, match="no split 'test'; there are train"):
        PreparedSet(tiny_corpus, "notes", "test")


def test_weights_are_shares_of_examples(tiny_corpus, tokenizer):
    run = tiny_run(tiny_corpus)
    data = open_stage(run, run.stages["align"], tokenizer, 0)
    assert collections.Counter(data.order[range(10_000)][:, 0].tolist()) == {0: 7500, 1: 2500}


def test_the_rows_of_all_processes_are_those_of_one(tiny_corpus, tokenizer):
    """Rows need not be neighbours; what is counted is counted over the whole batch, on every process alike."""
    run = tiny_run(tiny_corpus, "stages.align.rows=4")
    data = open_stage(run, run.stages["align"], tokenizer, 0)
    whole = batches_of(run, data)
    read = [(0, 3), (1, 2)]
    parts = [batches_of(run, data, rows=rows) for rows in read]
    for _ in range(5):
        expected = next(whole)
        shares = [next(part) for part in parts]
        for rows, share in zip(read, shares, strict=True):
            assert share["batch"].tokens.shape == (2, 192)
            for name in ("tokens", "samples"):
                ours, theirs = getattr(share["batch"], name), getattr(expected["batch"], name)
                np.testing.assert_array_equal(ours, theirs[list(rows)])
            for name in ("examples", "dropped_windows"):
                np.testing.assert_array_equal(share[name], expected[name])
    assert whole.get_state() == parts[0].get_state() == parts[1].get_state()


@pytest.mark.parametrize("taken", [0, 1, 7, 150])
def test_a_restored_loader_goes_on_with_the_very_next_batch(tiny_corpus, tokenizer, taken):
    run = tiny_run(tiny_corpus)
    data = open_stage(run, run.stages["align"], tokenizer, 5)
    running = batches_of(run, data)
    for _ in range(taken):
        next(running)
    state = json.loads(json.dumps(running.get_state()))
    restored = batches_of(run, data)
    next(restored)
    restored.set_state(state)
    for _ in range(4):
        same(next(running)["batch"], next(restored)["batch"])
    assert restored.get_state() == running.get_state()
    assert len(json.dumps(state)) < 100, "the state is small"


def test_a_run_goes_on_with_other_processes_and_workers_and_loses_nothing(tiny_corpus, tokenizer):
    """An epoch begun by one process is finished by two with a worker each: every example came exactly once."""
    run = tiny_run(
        tiny_corpus, "stages.align.steps=None", "stages.align.epochs=1", "stages.align.mixture={'notes': 1.0}"
    )
    stage = run.stages["align"]
    data = open_stage(run, stage, tokenizer, 2)
    steps = count_steps(stage, data)
    begun = batches_of(run, data)
    heard = [next(begun)["batch"] for _ in range(2)]
    workers = replace(run, loader_workers=1)
    parts = [batches_of(workers, data, rows=[row]) for row in range(stage.rows)]
    for part in parts:
        part.set_state(begun.get_state())
    for _ in range(2, steps):
        heard += [next(part)["batch"] for part in parts]
    notes = collections.Counter(
        row.samples[row.audio_slot[at].max() // 10].tobytes()
        for batch in heard
        for row in [
            type(batch)(**{name: getattr(batch, name)[i] for name in vars(batch)}) for i in range(len(batch.tokens))
        ]
        for segment in range(1, row.segment_ids.max() + 1)
        for at in [row.segment_ids == segment]
    )
    files = {PreparedSet(tiny_corpus, "notes").read(n).audio[0] for n in range(12)}
    assert sum(notes.values()) == 12
    assert len(notes) == len(files)


def test_an_epoch_ends_with_empty_rows_and_its_steps_are_counted(tiny_corpus, tokenizer):
    run = tiny_run(tiny_corpus, "stages.long.steps=None", "stages.long.epochs=3", "stages.long.rows=5", "mesh.data=1")
    stage = run.stages["long"]
    data = open_stage(run, stage, tokenizer, 0)
    steps = count_steps(stage, data)
    batches = batches_of(run, data, "long")
    elements = [next(batches) for _ in range(steps)]
    assert sum(int(element["examples"].sum()) for element in elements) == 3 * 4
    assert len(Rows(data, Place()).take(10**6)) == 12
    assert steps == 3, "a row holds one song; twelve songs are two batches of five and one of two"
    assert (elements[-1]["examples"] == [1, 1, 0, 0, 0]).all()


def test_a_damaged_shard_is_found_by_its_checksum_and_named(tmp_path):
    tiny_corpus = write_tiny_corpus(tmp_path)
    shard = PreparedSet(tiny_corpus, "notes").shards[0]
    data = bytearray(shard.read_bytes())
    data[data.index(b"fLaC") + 2000] ^= 1
    shard.write_bytes(data)
    prepared = PreparedSet(tiny_corpus, "notes")
    failed = []
    for record in range(12):
        try:
            prepared.read(record)
        except RecordError as error:
            failed.append(str(error))
    assert failed
    assert f"{shard}, record " in failed[0] and "damaged" in failed[0] and "--verify" in failed[0]
    shard.write_bytes(data[:-70_000])
    with pytest.raises(ManifestError, match=r"has \d+ bytes, not \d+; run `mufun prepare` again"):
        PreparedSet(tiny_corpus, "notes")
    shard.unlink()
    with pytest.raises(ManifestError, match="is missing"):
        PreparedSet(tiny_corpus, "notes")


def test_a_set_of_a_stranger_cannot_name_files_elsewhere(tmp_path):
    tiny_corpus = write_tiny_corpus(tmp_path)
    folder = tiny_corpus / "notes" / "1.0.0"
    report = (folder / "report.json").read_text()
    for changed in (
        report.replace('"file": "notes', '"file": "../1.0.0/notes'),
        report[:50],
        report.replace("12", "-1"),
    ):
        (folder / "report.json").write_text(changed)
        with pytest.raises(ManifestError, match=r"report\.json: missing or damaged .*run `mufun prepare` again"):
            PreparedSet(tiny_corpus, "notes")
    (folder / "report.json").write_text(report)
    index = next(folder.glob("*.index-*"))
    index.write_text(index.read_text().replace("High", "high"))
    with pytest.raises(ManifestError, match=r"index-00000-of-00001\.jsonl: missing or damaged"):
        list(PreparedSet(tiny_corpus, "notes").index())


def test_a_run_does_not_go_on_with_other_data(tiny_corpus, tokenizer):
    run = tiny_run(tiny_corpus)
    batches = batches_of(run, open_stage(run, run.stages["align"], tokenizer, 0))
    other = open_stage(run, run.stages["long"], tokenizer, 0)
    with pytest.raises(ConfigError, match="are not those of the checkpoint"):
        batches_of(run, other, "long").set_state(batches.get_state())


@pytest.mark.parametrize("lie", ["channels", "rate", "longer", "fewer examples", "no example"])
def test_a_record_that_lies_is_told_and_not_heard_wrong(tiny_corpus, tokenizer, monkeypatch, lie):
    run = tiny_run(tiny_corpus)
    measured = open_stage(run, run.stages["align"], tokenizer, 0).sets[0]
    true = measured.prepared.read(0)
    samples = decode_audio(true.audio[0], "flac", 0, SAMPLE_RATE)

    def flac(data, rate):
        file = io.BytesIO()
        soundfile.write(file, data, rate, format="FLAC")
        return file.getvalue()

    audio = {
        "channels": flac(np.stack([samples, samples], 1), SAMPLE_RATE),
        "rate": flac(samples, 44_100),
        "longer": flac(np.concatenate([samples, samples]), SAMPLE_RATE),
    }.get(lie, true.audio[0])
    examples = {"fewer examples": (), "no example": ({},)}.get(lie, true.examples)
    monkeypatch.setattr(measured.prepared, "read", lambda number: Record((audio,), "flac", examples))
    with pytest.raises(RecordError):
        measured.load(0, encoder_of(run, tokenizer))

import numpy as np
import pytest

from data_pipelines import loader
from data_pipelines.encode import Budget, ExampleEncoder
from data_pipelines.loader import load_batches, mix_manifests
from data_pipelines.manifest import Example, read_manifest
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import AudioError, ConfigError, ManifestError
from mufun_jax.text.conversation import Turn
from mufun_jax.text.tokenizer import load_tokenizer
from tests.train.tiny_run import tiny_run, write_tiny_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("nano")


def encoder_of(run, tokenizer, **changes):
    stage = run.stages["align"]
    budget = Budget(**{"positions": stage.positions, "windows": stage.windows, "targets": stage.targets, **changes})
    return ExampleEncoder(tokenizer, run.model.encoder, budget, "train", longest_audio=9.0)


def ids(mixed, indices):
    return [mixed[i].id for i in indices]


def question(path, segment=None, text="<audio>\nHigh?"):
    return Example("one", (path,), (segment,), (Turn(text, "low"),), None)


def test_an_example_is_its_audio_and_its_text(corpus, tokenizer):
    run = tiny_run(corpus)
    encoded = encoder_of(run, tokenizer)(question(corpus / "songs0.wav", (1.0, 3.0)))
    assert encoded.samples.shape == (2, SAMPLE_RATE)
    assert (encoded.audio_slot >= 0).sum() == 2 * run.model.encoder.tokens_per_window
    assert encoded.dropped_windows == 0
    text = encoded.tokens[encoded.audio_slot < 0]
    assert tokenizer.decode(text.tolist()).endswith("USER: \nHigh? ASSISTANT: low")
    assert tokenizer.decode(encoded.targets.tolist()) == " low"
    assert encoded.targets[-1] == tokenizer.end_of_turn
    np.testing.assert_array_equal(encoded.tokens[encoded.target_index + 1], encoded.targets)


def test_too_much_audio_is_left_out_by_whole_windows_and_text_is_not(corpus, tokenizer):
    run = tiny_run(corpus)
    tokens = run.model.encoder.tokens_per_window
    whole = encoder_of(run, tokenizer, windows=9)(question(corpus / "songs0.wav"))
    assert (len(whole.samples), whole.dropped_windows) == (5, 0)
    for changes, kept in (({"windows": 3}, 3), ({"windows": 9, "positions": len(whole.tokens) - tokens - 1}, 3)):
        short = encoder_of(run, tokenizer, **changes)(question(corpus / "songs0.wav"))
        assert (len(short.samples), short.dropped_windows) == (kept, 5 - kept)
        np.testing.assert_array_equal(short.samples, whole.samples[:kept])
        np.testing.assert_array_equal(short.tokens[short.audio_slot < 0], whole.tokens[whole.audio_slot < 0])
        np.testing.assert_array_equal(short.targets, whole.targets)
    with pytest.raises(ManifestError, match=r"one: \d+ tokens of text and 1 windows of 10 tokens do not fit into 40"):
        encoder_of(run, tokenizer, positions=40)(question(corpus / "songs0.wav"))
    with pytest.raises(ManifestError, match=r"one: \d+ target tokens, a row has 1"):
        encoder_of(run, tokenizer, targets=1)(question(corpus / "songs0.wav"))


def test_a_bad_file_stops_the_loader_and_is_named(corpus, tokenizer):
    with pytest.raises(AudioError, match=r"absent\.wav"):
        encoder_of(tiny_run(corpus), tokenizer)(question(corpus / "absent.wav"))


def test_every_example_comes_once_an_epoch_in_a_new_order(corpus):
    mixed = mix_manifests(corpus, {"notes": 1.0}, seed=3)
    epochs = [ids(mixed, range(epoch * 12, epoch * 12 + 12)) for epoch in range(3)]
    everything = {example.id for example in read_manifest(corpus / "notes.json")}
    assert all(set(epoch) == everything for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert ids(mix_manifests(corpus, {"notes": 1.0}, seed=3), range(12)) == epochs[0]
    assert ids(mix_manifests(corpus, {"notes": 1.0}, seed=4), range(12)) != epochs[0]


def test_weights_are_shares_of_examples(corpus):
    mixed = mix_manifests(corpus, {"notes": 3.0, "songs": 1.0}, seed=0)
    names = [name[:5] for name in ids(mixed, range(400))]
    assert names.count("songs") == 100


def test_processes_share_the_examples(corpus, tokenizer, monkeypatch):
    heard: dict[int, list[str]] = {}  # by encoder: the first process's goes on reading ahead

    class Recording(ExampleEncoder):
        def __call__(self, example):
            heard.setdefault(id(self), []).append(example.id)
            return super().__call__(example)

    monkeypatch.setattr(loader, "ExampleEncoder", Recording)
    run = tiny_run(corpus)
    stage = run.stages["align"]
    loaders = [load_batches(run, stage, tokenizer, 0, process=process, processes=2) for process in range(2)]
    for batches in loaders:
        assert next(batches)["batch"].tokens.shape == (1, 192)
    parts = [read[:6] for read in heard.values()]
    whole = ids(mix_manifests(corpus, stage.mixture, seed=0), range(12))
    assert [one for pair in zip(*parts, strict=True) for one in pair] == whole
    with pytest.raises(ConfigError, match="2 rows do not divide over 3 processes"):
        load_batches(run, stage, tokenizer, 0, process=0, processes=3)


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_a_restored_loader_goes_on_with_the_very_next_batch(corpus, tokenizer, taken):
    run = tiny_run(corpus)
    running = load_batches(run, run.stages["align"], tokenizer, 5)
    for _ in range(taken):
        next(running)
    restored = load_batches(run, run.stages["align"], tokenizer, 5)
    restored.set_state(running.get_state())
    for _ in range(5):
        ours, theirs = next(running)["batch"], next(restored)["batch"]
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_array_equal(ours.samples, theirs.samples)

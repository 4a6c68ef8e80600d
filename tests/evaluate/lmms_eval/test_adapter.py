"""MuFun behind lmms-eval's interface, beside the same model asked directly."""

import importlib
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from mufun_jax.errors import UserError
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.sample import Sampling
from tests.evaluate.lmms_eval import stand_in
from tests.evaluate.lmms_eval.stand_in import Instance, ModelManifest, chosen_option

ROOT = Path(__file__).parents[3]
OPTIONS = ("major", "minor", "neither of both")
RATE = 16_000


@pytest.fixture(scope="module")
def adapter():
    """The module, with the stand-in in the place of lmms-eval."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_in.modules().items():
            patch.setitem(sys.modules, name, module)
        yield importlib.import_module("mufun_jax.evaluate.lmms_eval.adapter")
        del sys.modules["mufun_jax.evaluate.lmms_eval.adapter"]


@pytest.fixture(scope="module")
def mufun(tiny_checkpoint):
    return MuFun.from_pretrained(tiny_checkpoint, "float32")


@pytest.fixture(scope="module")
def model(adapter, tiny_checkpoint, mufun):
    """As `--model mufun --model_args pretrained=…,dtype=float32 --batch_size 2` makes it, with a task's documents."""
    made = adapter.MuFunLmms.create_from_arg_string(
        f"pretrained={tiny_checkpoint},dtype=float32", {"batch_size": "2", "device": None, "max_batch_size": None}
    )
    rng = np.random.default_rng(0)
    songs = [rng.normal(0, 0.1, RATE * seconds).astype(np.float32) for seconds in (1, 2, 1)]
    made.task_dict["keys"] = {"test": [{"song": song, "answer": "major"} for song in songs]}
    return made


def audio(document):
    return [{"path": "x.wav", "array": document["song"], "sampling_rate": RATE}]


def request(context, second, document, visual=audio):
    return Instance("any", (context, second, visual, document, "keys", "test"))


def songs_of(model):
    return [(document["song"], RATE) for document in model.task_dict["keys"]["test"]]


def test_the_entry_point_names_the_class(adapter):
    """What is in pyproject.toml, loaded as lmms-eval does."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    ((name, value),) = points.items()
    module, _, function = value.partition(":")
    manifest = getattr(importlib.import_module(module), function)()
    assert manifest == ModelManifest("mufun", simple_class_path="mufun_jax.evaluate.lmms_eval.adapter.MuFunLmms")
    assert name == manifest.model_id
    path, _, class_name = manifest.simple_class_path.rpartition(".")
    found = getattr(importlib.import_module(path), class_name)
    assert issubclass(found, stand_in.Lmms)
    assert found.is_simple


def test_answers_in_the_order_of_the_requests(model, mufun):
    """Of three songs and two kinds of settings, mixed: each answer is what the model says alone."""
    short, long = {"max_new_tokens": 3, "until": ["\n\n"]}, {"max_new_tokens": 9, "do_sample": False, "until": None}
    asked = [(0, "Key?", short), (1, "Key?", long), (2, "Mode?", short), (0, "Mode?", long), (1, "Mode?", short)]
    replies = model.generate_until([request(context, settings, place) for place, context, settings in asked])
    songs = songs_of(model)
    wanted = [
        mufun.chat(context, songs[place], max_new_tokens=settings["max_new_tokens"])
        for place, context, settings in asked
    ]
    assert replies == wanted
    assert len(set(replies)) > 2


def test_an_answer_ends_before_the_stop_string(model, mufun):
    whole = mufun.chat("Key?", songs_of(model)[0], max_new_tokens=12)
    stop = whole[len(whole) // 2]
    (reply,) = model.generate_until([request("Key?", {"max_new_tokens": 12, "until": stop}, 0)])
    assert reply == whole[: whole.index(stop)]


def test_sampling(model, mufun):
    settings = {"max_new_tokens": 8, "do_sample": True, "temperature": 1.5, "top_p": 0.9, "top_k": 40}
    (reply,) = model.generate_until([request("Key?", settings, 0)])
    options = {"max_new_tokens": 8, "temperature": 1.5, "top_p": 0.9, "top_k": 40}
    assert reply == mufun.chat("Key?", songs_of(model)[0], **options)
    assert reply != mufun.chat("Key?", songs_of(model)[0], max_new_tokens=8)


def test_the_likeliest_option_is_taken(model, mufun):
    """Three options of two songs, in between one another, each with lmms-eval's space in front."""
    requests = [request("Key?", f" {option}", place) for option in OPTIONS for place in (0, 1)]
    results = model.loglikelihood(requests)
    for place in (0, 1):
        scores = mufun.score("Key?", songs_of(model)[place], OPTIONS)
        losses = [loss for loss, _ in results[place::2]]
        assert losses == pytest.approx([-score.log_probability for score in scores], rel=1e-4)
        likeliest = max(scores, key=lambda score: score.log_probability)
        assert OPTIONS[chosen_option(results[place::2])] == likeliest.option
    assert not any(greedy for _, greedy in results)


def test_what_the_model_says_by_itself_is_greedy(model, mufun, monkeypatch):
    (answer,) = [" minor "]
    said = SimpleNamespace(text=answer, finished=True)
    monkeypatch.setattr(model.mufun, "answer", lambda questions, max_new_tokens: [said for _ in questions])
    requests = [request("Key?", option, 0) for option in OPTIONS]
    assert [greedy for _, greedy in model.loglikelihood(requests)] == [False, True, False]
    said.finished = False
    assert not any(greedy for _, greedy in model.loglikelihood(requests))


def test_a_continuation_may_be_a_function_of_the_document(model):
    by_function = model.loglikelihood([request("Key?", lambda document: document["answer"], 0)])
    assert by_function == model.loglikelihood([request("Key?", "major", 0)])
    with pytest.raises(UserError, match="task keys, document 0: the continuation ' ' is no text"):
        model.loglikelihood([request("Key?", " ", 0)])


def test_forms_of_audio(model, tmp_path):
    """Decoded, as bytes, as a path, and as torchcodec's decoder: one song, one answer. Two songs have two places."""
    settings = {"max_new_tokens": 6}
    song = songs_of(model)[0][0]
    soundfile.write(tmp_path / "song.wav", song, RATE, subtype="FLOAT")
    path = str(tmp_path / "song.wav")
    decoder = SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=song[None], sample_rate=RATE))
    forms = [
        {"array": song, "sampling_rate": RATE},
        {"bytes": (tmp_path / "song.wav").read_bytes(), "path": None},
        {"bytes": None, "path": path},
        path,
        decoder,
    ]
    requests = [request("Key?", settings, 0, lambda document, form=form: [form]) for form in forms]
    assert len(set(model.generate_until(requests))) == 1
    both = request("Same?", settings, 0, lambda document: audio(document) * 2)
    placed = request("<audio> and <audio>: same?", settings, 0, lambda document: audio(document) * 2)
    none = request("Is A a note?", settings, 0, lambda document: [])
    assert len(model.generate_until([both, placed, none])) == 3
    with pytest.raises(UserError, match="a dict to look at: MuFun hears audio only"):
        model.generate_until([request("Key?", settings, 0, lambda document: [{"image": b""}])])
    with pytest.raises(UserError, match="a SimpleNamespace to look at"):
        model.generate_until([request("Key?", settings, 0, lambda document: [SimpleNamespace()])])


def test_settings(adapter):
    decoding = adapter.read_decoding({})
    assert (decoding.max_new_tokens, decoding.sampling, decoding.stop) == (256, Sampling(), ())
    tasks = {"max_new_tokens": 16, "temperature": 0, "top_p": 0, "num_beams": 1, "do_sample": False, "until": ["\n\n"]}
    assert adapter.read_decoding(tasks) == adapter.Decoding(16, Sampling(), ("\n\n",))
    assert adapter.read_decoding({"temperature": 0.7}).sampling == Sampling(0.7)
    assert adapter.read_decoding({"temperature": 0.7, "do_sample": False}).sampling == Sampling()
    assert adapter.read_decoding({"do_sample": True}).sampling == Sampling(1.0)


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (
            {"max_new_token": 3},
            r"no 'max_new_token' \(did you mean 'max_new_tokens'\?\); there are until, max_new_tokens",
        ),
        ({"image_aspect_ratio": "original"}, "no 'image_aspect_ratio'"),
        ({"num_beams": 4}, "num_beams 4: MuFun follows one"),
        ({"max_new_tokens": "many"}, "max_new_tokens 'many': write a whole number"),
        ({"temperature": "hot"}, "temperature 'hot': write a number"),
        ({"temperature": -1.0}, "temperature -1.0 is below 0"),
        ({"do_sample": True, "top_p": 0}, "top_p 0.0 is not in"),
    ],
)
def test_settings_that_are_not_known_or_not_possible(adapter, settings, wrong):
    with pytest.raises(UserError, match=wrong):
        adapter.read_decoding(settings)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"pretrainde": "x"}, r"model_args: no 'pretrainde' \(did you mean 'pretrained'\?\)"),
        ({"dtype": "float16"}, "dtype 'float16' is none of float32, bfloat16"),
        ({"quantize": "int4"}, "quantize 'int4': write int8"),
        ({"device": "cuda:0"}, "JAX chooses the device"),
        ({"batch_size": "auto"}, "--batch_size auto: write a number"),
        ({"batch_size": 0}, "--batch_size 0: write a number"),
    ],
)
def test_arguments_of_the_model(adapter, arguments, wrong):
    with pytest.raises(UserError, match=wrong):
        adapter.MuFunLmms(**{"pretrained": "nowhere", **arguments})


def test_requests_that_cannot_be_answered(model):
    with pytest.raises(UserError, match="a request with 2 arguments and not 6; choose tasks without acc_mutual_info"):
        model.loglikelihood([Instance("loglikelihood", ("", "major"))])
    with pytest.raises(UserError, match="one round"):
        model.generate_until_multi_round([])

"""What a step's line says, and where it goes: JSON lines, TensorBoard, Weights & Biases; profiles; the terminal."""

import json
import os
import signal
import sys
from itertools import pairwise

import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from mufun_jax.errors import ConfigError, UserError
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.events import EventLog
from mufun_jax.train.metrics import MetricsLog, read_metrics
from mufun_jax.train.profiler import Steps
from mufun_jax.train.throughput import Throughput
from mufun_jax.train_view import describe
from tests.train.tiny_run import KilledError, tiny_run


@pytest.fixture(scope="module")
def finished(tiny_corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    train_curriculum(tiny_run(tiny_corpus), workdir)
    return workdir


@pytest.fixture(scope="module")
def lines(finished):
    return list(read_metrics(finished / "metrics.jsonl"))


def test_the_losses_of_the_sets_make_up_the_loss(lines):
    """In `align` two sets are mixed; where one set has all the targets, its loss is the loss."""
    for line in lines:
        assert set(line["loss_of"]) <= {"notes", "songs"} and line["loss_of"]
        losses = list(line["loss_of"].values())
        assert min(losses) - 1e-5 <= line["loss"] <= max(losses) + 1e-5
        if len(losses) == 1:
            np.testing.assert_allclose(losses[0], line["loss"], rtol=1e-5)
    assert any(len(line["loss_of"]) == 2 for line in lines if line["stage"] == "align")
    assert all(list(line["loss_of"]) == ["songs"] for line in lines if line["stage"] == "long")


def test_norms_of_the_parts_make_up_the_norm(lines):
    for line in lines:
        parts = {key: norm for key, norm in line.items() if key.startswith("gradient_norm_")}
        expected = ["connector"] if line["stage"] == "warmup" else ["connector", "decoder", "encoder"]
        assert sorted(key.removeprefix("gradient_norm_") for key in parts) == expected
        np.testing.assert_allclose(np.sqrt(sum(norm**2 for norm in parts.values())), line["gradient_norm"], rtol=1e-5)


def test_rates_time_and_memory(lines):
    for line in lines:
        assert line["tokens_per_second"] > 0 and line["audio_seconds_per_second"] > 0
        assert 0.01 < line["memory_gib"] < 100
        assert 0 < line["goodput"] <= 1
        assert "mfu" not in line  # a CPU's peak is not known
    assert ["compile_seconds" in line for line in lines] == [line["step"] == 1 for line in lines]
    assert all(one["global_step"] + 1 == other["global_step"] for one, other in pairwise(lines))


def test_mfu_is_model_flops_over_the_peak(tiny_corpus):
    class Device:
        device_kind = "TPU v5 lite"

    run = tiny_run(tiny_corpus)
    from mufun_jax.model.flops import train_flops

    stage = run.stages["align"]
    rates = Throughput(run.model, stage, [Device(), Device()]).rates(0.5, 100.0, 8.0)
    assert rates["tokens_per_second"] == 200.0 and rates["audio_seconds_per_second"] == 16.0
    np.testing.assert_allclose(rates["mfu"], train_flops(run.model, stage).total / 0.5 / (2 * 197e12))


def read_events(folder):
    """(tag, step, value) of all event files, and the steps from which sessions start; records as TFRecord has them."""
    scalars, starts = [], []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + length])  # pyright: ignore[reportAttributeAccessIssue]
            data = data[16 + length :]
            if event.HasField("session_log"):
                starts.append(event.step)
            scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return scalars, starts


def test_tensorboard_has_every_number_of_every_step(finished, lines):
    assert RecordWriter  # what wrote them
    scalars, starts = read_events(finished / "tensorboard")
    assert starts == [1]
    losses = {step: value for tag, step, value in scalars if tag == "train/loss"}
    np.testing.assert_allclose(
        [losses[line["global_step"]] for line in lines], [line["loss"] for line in lines], rtol=1e-6
    )
    tags = {tag for tag, _, _ in scalars}
    assert {"train/learning_rate", "train/gradient_norm_decoder", "loss_of/songs", "train/goodput"} <= tags
    assert not {"train/step", "train/stage", "train/global_step"} & tags


def test_a_run_that_goes_on_tells_tensorboard_from_where(tiny_corpus, tmp_path):
    def kill(stage, step, steps, line):
        if line["global_step"] == 6:
            raise KilledError

    with pytest.raises(KilledError):
        train_curriculum(tiny_run(tiny_corpus), tmp_path, Callbacks(on_step=kill))
    train_curriculum(tiny_run(tiny_corpus), tmp_path)
    assert sorted(read_events(tmp_path / "tensorboard")[1]) == [1, 5]


def test_tensorboard_can_be_left_out(tiny_corpus, tmp_path):
    train_curriculum(tiny_run(tiny_corpus, "dashboards.tensorboard=False", "curriculum=('warmup',)"), tmp_path)
    assert not (tmp_path / "tensorboard").exists()


def test_weights_and_biases_gets_them_too(tiny_corpus, tmp_path, monkeypatch):
    """Its real client, which writes to the disk where it is told to be offline."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train_curriculum(tiny_run(tiny_corpus, "dashboards.wandb_project=mufun", "curriculum=('warmup',)"), tmp_path)
    name = (tmp_path / "wandb-run").read_text()
    (written,) = (tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb")
    data = written.read_bytes()
    assert b"train/loss" in data and b"loss_of/notes" in data and b"mufun" in data


def test_weights_and_biases_that_is_not_there_is_said_at_the_start(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"dashboards.wandb_project needs Weights & Biases: pip install wandb"):
        train_curriculum(tiny_run(tiny_corpus, "dashboards.wandb_project=mufun"), tmp_path)


def test_profiles_of_the_steps_asked_for_and_on_a_signal(tiny_corpus, tmp_path):
    events = []

    def ask(stage, step, steps, line):
        if line["global_step"] == 5:
            os.kill(os.getpid(), signal.SIGUSR1)

    callbacks = Callbacks(on_step=ask, on_event=lambda *event: events.append(event))
    train_curriculum(tiny_run(tiny_corpus), tmp_path, callbacks, profile=Steps(1, 2))
    assert [event for event, _ in events].count("profile") == 2
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 2


@pytest.mark.parametrize("given", ["10", "15:10", "a:b", ":", "1:2:3", "-1:3"])
def test_a_profile_of_no_steps_is_refused(given, tiny_corpus, tmp_path, run):
    code, _, err = run(
        "train",
        "--config",
        tiny_corpus / "tiny.py",
        "--workdir",
        tmp_path,
        "--set",
        f"data={tiny_corpus}",
        f"--profile={given}",
    )
    assert code == 2 and err == f"error: --profile {given}: write FIRST:LAST, for instance 10:15\n"


def test_a_line_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"global_step": 1}\n{"global_st}\n{"global_step": 3}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2: is damaged; take the line out"):
        MetricsLog(path, 3)


def test_lines_after_the_checkpoint_are_taken_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"global_step": n, "seconds": 2.0}) + "\n" for n in range(1, 6)) + '{"glob')
    log = MetricsLog(path, 3)
    assert log.seconds == 6.0
    log.write({"global_step": 4, "evaluation_loss": 0.5})
    log.sync()
    log.close()
    assert [line["global_step"] for line in read_metrics(path)] == [1, 2, 3, 4]
    assert log.evaluation_losses == {4: 0.5}


def test_half_an_event_that_a_kill_left_does_not_stop_the_run(tmp_path):
    path, whole = tmp_path / "events.jsonl", b""
    for session in range(3):
        log = EventLog(tmp_path)
        assert log.session == session
        log.write("start", "again")
        log.close()
        whole = path.read_bytes()
        path.write_bytes(whole + b'{"time": 1.5, "sess')
    EventLog(tmp_path).close()
    assert path.read_bytes() == whole


def test_a_step_in_words(lines):
    words = describe(lines[4] | {"mfu": 0.391, "evaluation_loss": 0.25}, "step 4 is saved at 12:00:00")
    said = "\n".join(words)
    assert f"loss {lines[4]['loss']:.3f}, learning rate" in words[0] and "(connector " in words[0]
    assert "evaluation loss 0.250" in said and "MFU 39.1%" in said and "goodput" in said
    assert said.endswith("step 4 is saved at 12:00:00")
    assert describe({"skipped": "loss is nan"}, "") == ["passed over: loss is nan"]


def test_where_there_is_no_terminal_a_line_is_printed_now_and_then(tiny_corpus, tmp_path, run):
    code, out, err = run(
        "train", "--config", tiny_corpus / "tiny.py", "--workdir", tmp_path, "--set", f"data={tiny_corpus}"
    )
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["warmup", "align", "long", "The"]
    assert [line.partition(":")[0] for line in err.splitlines() if "loss" in line][-1] == "long 3/3"
    assert "left in all" in err and "\x1b" not in err

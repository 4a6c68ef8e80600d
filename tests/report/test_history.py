"""What is read of a workdir: whole files, files cut short, runs that were restarted and rolled back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.report.events import Event
from mufun_jax.report.history import read_history
from mufun_jax.report.sessions import wall_time
from mufun_jax.report.steps import read_steps
from tests.report.rich_run import START, RichRun


def line(step: int, **more: Any) -> dict[str, Any]:
    return {"stage": "one", "step": step, "global_step": step, "seconds": 2.0, "loss": 5.0 - 0.1 * step} | more


def write_lines(path: Path, lines: list[dict[str, Any]], end: str = "") -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines) + end)
    return path


def event(time: float, session: int, name: str, step: int, **more: Any) -> Event:
    return Event(time=time, session=session, event=name, global_step=step, **more)


def test_steps_are_arrays_with_nothing_where_a_line_lacks_a_field(tmp_path):
    lines = [
        line(1, loss_of={"a": 4.0}),
        line(2, evaluation_loss=3.5, loss_of={"b": 2.0}, mfu=None),
        {key: value for key, value in line(3, skipped="too high").items() if key != "loss"},
        line(4, stage="two", loss=float("inf")),
    ]
    steps = read_steps(write_lines(tmp_path / "metrics.jsonl", lines))
    assert steps.global_step.tolist() == [1, 2, 3, 4]
    assert [steps.stages[number] for number in steps.stage] == ["one", "one", "one", "two"]
    np.testing.assert_array_equal(steps.values["loss"], [4.9, 4.8, np.nan, np.nan])
    np.testing.assert_array_equal(steps.values["evaluation_loss"], [np.nan, 3.5, np.nan, np.nan])
    np.testing.assert_array_equal(steps.loss_of["b"], [np.nan, 2.0, np.nan, np.nan])
    assert "mfu" not in steps.values
    assert steps.skipped == {2: "too high"}
    assert steps.unreadable == 0


def test_a_last_line_that_was_cut_is_left_out_and_others_are_counted(tmp_path):
    whole = json.dumps(line(2))
    path = write_lines(
        tmp_path / "metrics.jsonl", [line(1)], end=f'{whole[:30]}{whole}\n[1]\n{{"loss": 1}}\n{whole[:25]}'
    )
    assert read_steps(path).global_step.tolist() == [1]
    assert read_steps(path).unreadable == 3, "cut and written on, no object, no step; not the last"
    path.write_text(json.dumps(line(1)) + "\n" + json.dumps(line(2)))
    assert read_steps(path).global_step.tolist() == [1, 2], "whole but for its end"


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "high"},
        {"loss": True},
        {"loss": 10**400},
        {"global_step": 2.0},
        {"global_step": 0},
        {"global_step": 2**63},
        {"stage": 1},
        {"loss_of": [1]},
        {"loss_of": {"a": "b"}},
    ],
)
def test_a_line_that_is_no_step_is_counted(tmp_path, wrong):
    steps = read_steps(write_lines(tmp_path / "metrics.jsonl", [line(1), line(2) | wrong, line(3)]))
    assert (steps.global_step.tolist(), steps.unreadable) == ([1, 3], 1)


def test_steps_that_were_rolled_back_do_not_count(tmp_path):
    lines = [line(step) for step in range(1, 9)] + [line(step, loss=1.0) for step in (5, 6)]
    lines[6]["skipped"] = "seven"
    steps = read_steps(write_lines(tmp_path / "metrics.jsonl", lines))
    assert steps.global_step.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(steps.values["loss"], [4.9, 4.8, 4.7, 4.6, 1.0, 1.0])
    assert (steps.taken_back, steps.skipped) == (4, {})
    assert steps.total("seconds") == 12.0


def test_sessions_and_goodput_of_a_run_that_was_restarted(tmp_path):
    """20 steps of 2 s. The first session did 12 in 50 s but kept 10; 30 s of nothing; the second did the other 10."""
    steps = read_steps(write_lines(tmp_path / "metrics.jsonl", [line(step) for step in range(1, 21)]))
    time = wall_time(
        [
            event(1000, 0, "start", 0, devices=8, device_kind="TPU v5e"),
            event(1040, 0, "saved", 10, seconds=3.0),
            event(1050, 0, "preempted", 12),
            event(1080, 1, "start", 10, resumed_from=10),
            event(1090, 1, "saved", 11),
        ],
        steps,
    )
    assert time is not None
    first, second = time.sessions
    assert (first.start, first.end, first.productive, first.saving) == (0.0, 50.0, 20.0, 3.0)
    assert (first.taken_back, first.other, first.ended_by) == (4.0, 23.0, "preempted")
    assert first.device == "8 TPU v5e"
    assert (second.start, second.productive, second.reached, second.ended_by) == (80.0, 20.0, 20, None)
    assert second.end == 90 + 9 * 2.0, "nine steps since the last event"
    assert (time.down, time.lost, time.wall) == (30.0, 34.0, 108.0)
    assert time.goodput == pytest.approx(40 / 108)


def test_a_rollback_is_lost_time(tmp_path):
    steps = read_steps(write_lines(tmp_path / "metrics.jsonl", [line(step) for step in range(1, 11)]))
    events = [event(0, 0, "start", 0), event(15, 0, "saved", 5), event(30, 0, "rollback", 8), event(60, 0, "end", 10)]
    time = wall_time(events, steps)
    assert time is not None
    assert (time.sessions[0].taken_back, time.lost, time.goodput) == (6.0, 6.0, 20 / 60)


@pytest.mark.parametrize("jump", [-1e6, -10.0, 0.0, 1e6])
def test_a_wall_clock_that_jumps_gives_no_negative_times(tmp_path, jump):
    steps = read_steps(write_lines(tmp_path / "metrics.jsonl", [line(step) for step in range(1, 21)]))
    base = 2e6
    time = wall_time(
        [
            event(base, 0, "start", 0),
            event(base + 20 + jump, 0, "preempted", 12),
            event(base + 30 + jump / 2, 1, "start", 10, resumed_from=10),
            event(base + 50 + jump, 1, "end", 20),
        ],
        steps,
    )
    assert time is not None
    assert 0 < time.goodput <= 1
    assert time.down >= 0
    for session in time.sessions:
        assert session.end >= session.start >= 0
        assert min(session.productive, session.taken_back, session.other) >= 0
        assert session.end - session.start >= session.productive


def test_a_whole_run(tmp_path):
    RichRun(tmp_path, steps=600).write()
    history = read_history(tmp_path, now=0.0)
    assert [stage.name for stage in history.stages][:2] == ["warmup", "align1"]
    assert (history.state, history.planned, history.global_step) == ("finished", 600, 600)
    warmup, align1 = history.stages[:2]
    assert (warmup.done, warmup.planned, warmup.first, warmup.last) == (18, 18, 1, 18)
    assert dict(warmup.training) == {"encoder": "frozen", "connector": "full", "decoder": "frozen"}
    assert align1.loss_start is not None and align1.loss_end is not None and align1.loss_start > 2 * align1.loss_end
    shares = history.stages[-1].sets
    assert {each.name: (each.share, each.hours, each.left_out) for each in shares} == {
        "train_notes": (0.4, 1.83, 0),
        "train_excerpts": (0.4, 1.41, 0),
        "train_songs": (0.2, 0.73, 1),
    }
    assert history.time is not None
    assert len(history.time.sessions) == 4
    assert sum(session.productive for session in history.time.sessions) == pytest.approx(history.steps.total("seconds"))
    assert len(history.steps.skipped) == 4
    assert history.unreadable == {"metrics.jsonl": 0, "events.jsonl": 0}


def test_a_run_of_before_has_steps_only(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", [line(1), line(2, stage="two")])
    history = read_history(tmp_path, now=0.0)
    assert [(stage.name, stage.done, stage.planned) for stage in history.stages] == [("one", 1, None), ("two", 1, None)]
    assert (history.time, history.planned, history.config) == (None, None, None)


@pytest.mark.parametrize(
    ("last", "quiet", "state"),
    [("saved", 10, "running"), ("saved", 10_000, "stopped"), ("preempted", 10, "stopped"), ("end", 1e9, "finished")],
)
def test_whether_a_run_still_runs(tmp_path, last, quiet, state):
    path = write_lines(tmp_path / "metrics.jsonl", [line(1), line(2)])
    events = [{"time": START, "session": 0, "event": name, "global_step": 1} for name in ("start", last)]
    events_path = write_lines(tmp_path / "events.jsonl", events)
    now = max(path.stat().st_mtime, events_path.stat().st_mtime) + quiet
    assert read_history(tmp_path, now).state == state


def test_a_run_without_events_is_finished_when_its_model_is_there(tmp_path):
    path = write_lines(tmp_path / "metrics.jsonl", [line(1)])
    assert read_history(tmp_path, path.stat().st_mtime).state == "running"
    (tmp_path / "checkpoint").mkdir()
    assert read_history(tmp_path, path.stat().st_mtime).state == "finished"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", "{", "config.json: no JSON"),
        ("config.json", "[]", "config.json: holds no JSON object"),
        ("config.json", '{"stages": {"one": {"mixture": []}}}', "config.json: stages.one.mixture: "),
        ("plan.json", '{"steps": {"one": "many"}}', "plan.json: steps.one: "),
        ("data/one.json", '{"songs": {"examples": 3}}', "one.json: songs.hours: Field required"),
    ],
)
def test_a_damaged_file_is_named_with_its_key(tmp_path, name, text, said):
    write_lines(tmp_path / "metrics.jsonl", [line(1)])
    (tmp_path / "data").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read_history(tmp_path, now=0.0)


def test_events_that_are_none_are_counted(tmp_path):
    write_lines(
        tmp_path / "events.jsonl",
        [
            {"time": START, "session": 0, "event": "start", "global_step": 0, "more": "of later versions"},
            {"time": "noon", "session": 0, "event": "saved", "global_step": 0},
            {"time": 1e300, "session": 0, "event": "saved", "global_step": 0},
        ],
        end='{"time": 17900',
    )
    history = read_history(tmp_path, now=0.0)
    assert [each.event for each in history.events] == ["start"]
    assert history.unreadable["events.jsonl"] == 2

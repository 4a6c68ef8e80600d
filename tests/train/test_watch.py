"""The watch names the process that does not move, and ends a run that never will."""

import json
import time

import pytest

from mufun_jax.config import WatchConfig
from mufun_jax.errors import RESTART
from mufun_jax.train.watch import Watch

SHORT = WatchConfig(stall_minutes=0.6 / 60, end_minutes=1.5 / 60)


class Pulses:
    """Other processes of a run, as they would write where they are."""

    def __init__(self, folder, count):
        self._folder, self._state = (
            folder,
            {number: {"beat": 0, "moves": 0, "place": "", "slow": False} for number in range(1, count)},
        )

    def write(self, number, place=None, *, alive=True, slow=False):
        state = self._state[number]
        if place is not None:
            state |= {"moves": state["moves"] + 1, "place": place, "slow": slow}
        if alive:
            state["beat"] += 1
            pulse = {**state, "host": f"host-{number}", "pid": 1}
            (self._folder / f"pulse-{number}.json").write_text(json.dumps(pulse))


@pytest.fixture
def three(tmp_path, monkeypatch):
    """A watch of process 0 of 3, its sentences and its exit codes; and the pulses of the others."""
    monkeypatch.setattr("jax.process_count", lambda: 3)
    said, codes = [], []
    watch = Watch(tmp_path, SHORT, on_stall=said.append, end=codes.append)
    (tmp_path / "processes").mkdir()
    return watch, Pulses(tmp_path / "processes", 3), said, codes


def run(watch, pulses, seconds, places, alive=(1, 2)):
    """Beats for so long; everyone moves once, to its place, at the start."""
    with watch:
        watch.at(places[0])
        for number in (1, 2):
            pulses.write(number, places[number])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for number in alive:
                pulses.write(number)
            time.sleep(0.05)


def test_a_process_whose_pulse_has_stopped_is_named(three):
    watch, pulses, said, codes = three
    run(watch, pulses, 1.2, ["step 7", "step 7", "step 7"], alive=(1,))
    assert said and "process 2 (on host-2, at: step 7) of 3 gives no sign of life" in said[0]
    assert not codes


def test_the_process_that_has_come_least_far_is_named(three):
    watch, pulses, said, _ = three
    watch.at("step 6")
    pulses.write(2, "step 6")
    run(watch, pulses, 1.2, ["step 7", "step 7, waiting for the batch", "step 7"])
    assert "nothing has moved for " in said[0]
    assert "process 1 (on host-1, at: step 7, waiting for the batch) of 3 has come least far" in said[0]


def test_who_moves_is_left_alone_and_a_standstill_is_ended(three):
    watch, pulses, said, codes = three
    with watch:
        for step in range(20):
            watch.at(f"step {step}")
            pulses.write(1, f"step {step}")
            pulses.write(2, "step 0")
            time.sleep(0.06)
        assert not said and not codes
        time.sleep(2.5)
    assert codes and set(codes) == {RESTART}


def test_what_takes_long_by_its_nature_has_longer(three):
    watch, pulses, said, _ = three
    with watch:
        watch.at("compiling", slow=True)
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            pulses.write(1)
            pulses.write(2)
            time.sleep(0.05)
        assert not said


def test_half_a_pulse_is_no_pulse(three, tmp_path):
    watch, _, said, _ = three
    (tmp_path / "processes" / "pulse-1.json").write_text('{"beat": 1')
    with watch:
        watch.at("step 1")
        time.sleep(1.0)
    assert said and "process 1, 2" not in said[0]
    assert "process 1 (on ?, at: not started)" in said[0]

import json

import numpy as np
import pytest

from mufun_jax.config_file import load_run_config
from mufun_jax.experiment import context_boundary
from mufun_jax.experiment.context_boundary import ContextBoundary, Expected, expected, lengths
from mufun_jax.experiment.experiment import Options
from mufun_jax.model.presets import preset
from tests.tiny import SMALLEST

EXPERIMENT = ContextBoundary()


@pytest.fixture
def options(tiny_checkpoint):
    return Options(load_run_config("configs/nano.py"), checkpoints=(str(tiny_checkpoint),))


def perform(options, workdir):
    notes = []
    outcome = EXPERIMENT.run(workdir, options, lambda done, total, note: notes.append((done, total, note)))
    assert notes[-1][:2] == (len(notes) - 2, len(notes) - 2)
    return outcome


def fails(outcome):
    return {check.name for check in outcome.checks if not check.holds}


@pytest.fixture(scope="module")
def outcome(tiny_checkpoint, tmp_path_factory):
    options = Options(load_run_config("configs/nano.py"), checkpoints=(str(tiny_checkpoint),))
    return perform(options, tmp_path_factory.mktemp("boundary"))


def test_what_the_full_model_hears_of_the_papers_lengths():
    heard = [expected(round(seconds * 16_000), preset("mufun_8b")) for seconds in (389, 390, 391, 400)]
    assert [each.windows for each in heard] == [13] * 4
    assert [each.tokens for each in heard] == [3900] * 4
    assert [each.dropped / 16_000 for each in heard] == [0, 0, 1, 10]


def test_a_tail_of_half_a_second_gets_no_window():
    config = preset("mufun_8b")
    assert expected(488_000, config) == Expected(1, 300, 480_000, 8_000)
    assert expected(488_001, config) == Expected(2, 600, 488_001, 0)


def test_every_border_is_tried():
    tried = lengths(preset("mufun_8b"), quick=False)
    for border in range(1, 14):
        assert {480_000 * border + more for more in (-1, 0, 1, 8_000, 8_001)} <= set(tried)
    assert {round(seconds * 16_000) for seconds in (389, 390, 391, 400)} <= set(tried)


def test_a_model_keeps_its_windows_apart(outcome):
    assert outcome.holds, fails(outcome)
    assert len(outcome.checks) == 6
    by_arm = {part["arm"]: part for part in outcome.measured}
    assert by_arm["seams"]["neighbours"] == [0.0] * SMALLEST.max_windows
    longest = [row for row in by_arm["tokens"]["lengths"] if row[0] >= 16_000 * 400]
    assert longest == [[6_400_000, 4, 40, 64_000, 6_336_000]]


def test_done_arms_are_not_done_again(options, tmp_path, monkeypatch):
    first = perform(options, tmp_path)
    monkeypatch.setattr(context_boundary, "load", None)
    assert perform(options, tmp_path) == first


def test_another_model_in_the_same_workdir_is_refused(options, tmp_path):
    from dataclasses import replace

    perform(replace(options, arms=("memory",), quick=True), tmp_path)
    with pytest.raises(ValueError, match=r"measured.json was measured on something else \(quick: True is not False\)"):
        perform(replace(options, arms=("memory",)), tmp_path)


def test_a_count_that_is_off_is_seen(options, tmp_path, monkeypatch):
    monkeypatch.setattr("mufun_jax.audio.windows.DROPPED_TAIL", 7_999)
    found = perform(options, tmp_path)
    assert fails(found) == {"token counts"}
    assert found.answer.startswith("No: 24000 samples: 2 windows, 20 tokens, 24000 samples used, 0 dropped, not 1 ")


def test_windows_that_leak_into_one_another_are_seen(options, tmp_path, monkeypatch):
    tokens = context_boundary.audio_tokens

    def leaking(model, windows):
        found = tokens(model, windows).copy()
        found[1:, 0] += 1e-3 * found[:-1, -1]
        return found

    monkeypatch.setattr(context_boundary, "audio_tokens", leaking)
    found = perform(options, tmp_path)
    assert fails(found) == {"a window alone is the window among others", "a window does not depend on its neighbours"}


def test_a_longer_song_that_takes_more_memory_is_seen(options, tmp_path, monkeypatch):
    sizes = iter(range(1_000, 100_000, 1_000))
    monkeypatch.setattr(context_boundary, "bytes_of", lambda prefix: next(sizes))
    assert fails(perform(options, tmp_path)) == {
        "a song beyond the context takes no more memory",
        "memory grows by the slot",
    }


def test_the_command_writes_a_page(run, tiny_checkpoint, tmp_path):
    code, out, err = run(
        *("experiment", "context-boundary", "--checkpoint", tiny_checkpoint, "--workdir", tmp_path, "--quick")
    )
    assert code == 0, err
    assert "Is a song heard whole" in out
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["holds"] is True
    page = (tmp_path / "report.html").read_text()
    assert "What is heard" in page and "does not hold" not in page


def test_the_sound_is_the_same_up_to_any_sample():
    np.testing.assert_array_equal(context_boundary.sound(1_000), context_boundary.sound(2_000)[:1_000])

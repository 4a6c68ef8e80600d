"""The page of `mufun report`: all its parts, nothing from the network, nothing of what strangers' names would do."""

import base64
import html
import json
import re
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mufun_jax
from mufun_jax.report.events import Event
from mufun_jax.report.figures import PANELS, loss_chart
from mufun_jax.report.history import read_history
from mufun_jax.report.page import event_rows, make_page
from mufun_jax.report.steps import FIELDS
from mufun_jax.report.wording import duration, for_figure, percent, plain, short
from tests.report.rich_run import START, RichRun

EVIL = "</script><script>document.title='owned'</script><img src=//evil.example/x onerror=alert(1)> \u202e\ud800 %{x}"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    RichRun(folder, steps=600).write()
    return folder


@pytest.fixture(scope="module")
def page(workdir) -> str:
    return make_page(read_history(workdir, now=0.0), now=START)


def without_library(page: str) -> str:
    """The page without Plotly's own code, which is the longest script."""
    library = max(re.findall(r"<script>.*?</script>", page, flags=re.DOTALL), key=len)
    assert len(library) > 10**6
    return page.replace(library, "")


def figures_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, flags=re.DOTALL)
    assert found and "<" not in found[1], "nothing in the data can end its element"
    return json.loads(found[1])["figures"]


def numbers(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])


def test_all_parts_are_there(page):
    figures = figures_of(page)
    assert set(figures) == {"loss", "sets", "timeline", *(panel.id for panel in PANELS)}
    text = html.unescape(without_library(page))
    for heading in ("Loss", "Loss by set", "MFU", "Gradient norm", "Sessions", "Stages", "Events", "Config"):
        assert f"<h2>{heading}</h2>" in text
    for word in ("finished", "goodput", "3 restarts, 1 rollback", "train_excerpts", "1 left out", "weight_decay"):
        assert word in text
    for file in ("rollback", "damaged", "preempted", "stalled"):
        assert f'<span class="event {file}">' in text
    assert {field for panel in PANELS for field in panel.fields} - {"data_wait_share"} <= set(FIELDS)


def test_the_loss_figure_shows_stages_restarts_rollbacks_and_skipped_steps(page, workdir):
    layout, data = (figures_of(page)["loss"][key] for key in ("layout", "data"))
    steps = read_history(workdir, now=0.0).steps
    names = [trace["name"] for trace in data]
    assert {"align1", "align1, a step", "evaluation", "restart", "rollback", "skipped", "damaged"} <= set(names)
    assert [band["name"] for band in layout["meta"]["bands"]] == list(steps.stages)
    rects = [shape for shape in layout["shapes"] if shape["type"] == "rect"]
    assert (rects[0]["x0"], rects[0]["x1"], rects[-1]["x1"]) == (0.5, 18.5, 600.5)
    restarts = data[names.index("restart")]
    assert len(restarts["x"]) == 3
    assert "from step" in restarts["hovertext"][0]
    assert "the loss rose to" in data[names.index("rollback")]["hovertext"][0]
    assert data[names.index("skipped")]["hovertext"][0].startswith("steps 222 to 225 skipped: the loss was 9.31")
    raw = np.concatenate([numbers(trace["y"]) for trace in data if trace["name"].endswith(", a step")])
    assert np.nanmax(raw) == pytest.approx(np.nanmax(steps.values["loss"])), "the spike is shown"


def test_nothing_refers_to_the_network(page):
    text = without_library(page)
    assert "//" not in re.sub(r'"bdata":"[^"]*"|^\s*// .*$|; // .*$|, // .*$', "", text, flags=re.MULTILINE)
    for tag in ("<link", "src=", "@import", "url("):
        assert tag not in text.replace('<link rel="icon" href="data:,">', "")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy and "default-src 'none'" in html.unescape(policy[1])


def test_hostile_names_are_shown_and_do_nothing(workdir, tmp_path):
    for path in sorted(workdir.rglob("*.json*")):
        target = tmp_path / path.relative_to(workdir)
        target.parent.mkdir(exist_ok=True)
        text = path.read_text().replace('"train_notes"', json.dumps(EVIL)).replace('"align1"', json.dumps(EVIL))
        target.write_text(text)
    events = tmp_path / "events.jsonl"
    lines = [json.loads(line) | {"message": EVIL, "device_kind": EVIL} for line in events.read_text().splitlines()]
    lines[2]["event"] = EVIL
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = make_page(replace(read_history(tmp_path, now=0.0), name=EVIL), now=START)
    page.encode()  # no lone surrogate is left
    assert page.count("<script") == 3
    assert "<img" not in without_library(page)
    assert "\u202e" not in page
    text = html.unescape(without_library(page))
    assert text.count("<script>document.title='owned'") > 20, "shown as what it is: a name"
    drawn = json.dumps(figures_of(page))
    assert "&lt;script&gt;" in drawn
    assert "<script" not in drawn, "Plotly reads some HTML"


def test_300_000_steps_give_a_small_page_in_bounded_time(tmp_path):
    """The lines of a short run again and again, as stages of a long one; a spike in the middle stays visible."""
    RichRun(tmp_path, steps=600).write()
    path = tmp_path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    texts = [json.dumps({key: value for key, value in line.items() if key != "global_step"})[:-1] for line in lines]
    with path.open("w") as out:
        for step in range(300_000):
            text = texts[step * 600 // 300_000]
            if step == 200_000:
                text = json.dumps(json.loads(text + "}") | {"loss": 77.0})[:-1]
            out.write(f'{text}, "global_step": {step + 1}}}\n')
    started = time.process_time()
    history = read_history(tmp_path, now=0.0)
    page = make_page(history, now=START)
    assert time.process_time() - started < 60
    assert len(history.steps) == 300_000
    assert len(page) < 15e6
    loss = figures_of(page)["loss"]
    assert sum(len(numbers(trace["y"])) for trace in loss["data"] if isinstance(trace["y"], dict)) < 8_000
    raw = np.concatenate([numbers(trace["y"]) for trace in loss["data"] if trace["name"].endswith(", a step")])
    assert 77.0 in raw


def test_a_run_that_has_only_started_has_a_page(tmp_path):
    event = {"time": START, "session": 0, "event": "start", "global_step": 0, "message": "begun"}
    (tmp_path / "events.jsonl").write_text(json.dumps(event) + "\n")
    history = read_history(tmp_path, now=0.0)
    assert loss_chart(history) is None
    assert set(figures_of(make_page(history, now=START))) == {"timeline"}


def test_saves_in_a_row_are_one_row_and_the_middle_of_very_many_events_is_left_out():
    def event(name: str, step: int) -> Event:
        return Event(time=START, session=0, event=name, global_step=step)

    rows = event_rows((event("start", 0), event("saved", 5), event("saved", 10), event("end", 12)))
    assert [(row.event and row.event.global_step, row.count) for row in rows] == [(0, 1), (10, 2), (12, 1)]
    rows = event_rows(tuple(event("profile", step) for step in range(1_000)))
    assert len(rows) == 401
    assert (rows[100].event, rows[100].count) == (None, 600)
    assert rows[-1].event and rows[-1].event.global_step == 999


def test_the_command_writes_the_page_and_says_where(run, workdir, tmp_path):
    code, out, err = run("report", workdir)
    assert (code, out, err) == (0, f"The report is in {workdir / 'report.html'}\n", "")
    assert (workdir / "report.html").read_text().startswith("<!doctype html>")
    code, out, _ = run("report", workdir, "--out", tmp_path / "new" / "page.html")
    assert code == 0
    assert (tmp_path / "new" / "page.html").is_file()


def test_a_folder_without_a_run_is_refused_in_a_line(run, tmp_path):
    code, _, err = run("report", tmp_path)
    assert code == 2
    assert re.fullmatch(r"error: .*: no run is here: neither metrics.jsonl nor events.jsonl; give .*\n", err)


def test_a_missing_library_is_named_with_its_extra(run, workdir, monkeypatch):
    monkeypatch.setattr("mufun_jax.report.written.find_spec", lambda name: None if name == "plotly" else True)
    code, _, err = run("report", workdir)
    assert code == 2
    assert err == "error: mufun report needs Plotly, which is not installed: pip install 'mufun_jax[report]'\n"


def test_wording():
    seconds = (0.31, 41.0, 303.0, 1_650.0, 11_520.0, 370_800.0)
    assert [duration(each) for each in seconds] == ["0.3 s", "41 s", "5 min 3 s", "27 min", "3 h 12 min", "4 d 7 h"]
    assert [percent(share) for share in (0.0, 0.4118, 0.5, 1.0)] == ["0 %", "41.2 %", "50 %", "100 %"]
    assert [short(value) for value in (0.41826, 183_900.0, 1.25e6, 2e-5)] == ["0.4183", "184 k", "1.25 M", "2e-05"]
    assert plain("a\x1b[31m\u202eb") == r"a\x1b[31m\u202eb"
    assert for_figure("<b>x</b>\n" + "y" * 99) == "&lt;b&gt;x&lt;/b&gt; " + "y" * 38 + "…"


def test_what_pages_are_made_of_is_part_of_the_package():
    root = Path(mufun_jax.__file__).parent
    project = tomllib.loads((root.parent / "pyproject.toml").read_text())
    packed = {path for glob in project["tool"]["setuptools"]["package-data"]["mufun_jax"] for path in root.glob(glob)}
    needed = {path for kind in ("html", "css", "js", "json") for path in root.rglob(f"*.{kind}")}
    assert len(needed) > 10
    assert needed <= packed

"""The page in a real browser: its script runs, and every figure is drawn."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mufun_jax.report.history import read_history
from mufun_jax.report.page import make_page
from tests.report.rich_run import START, RichRun
from tests.serve.browser import browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browse(page: Path, profile: Path, *options: str) -> str:
    """The document after its script ran, as the browser writes it."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    assert browser, f"no browser: one of {', '.join(BROWSERS)} must be on the PATH; `make browser` installs one"
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=30000", *options, "--dump-dom", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.mark.parametrize(
    ("options", "blue"),
    [
        (("--window-size=1360,900",), "rgb(42, 120, 214)"),
        (("--window-size=500,900", "--blink-settings=preferredColorScheme=0"), "rgb(90, 157, 240)"),
    ],
    ids=["wide-light", "narrow-dark"],
)
def test_every_figure_is_drawn_and_no_script_fails(tmp_path, options, blue):
    RichRun(tmp_path, steps=600, ends=False).write()
    path = tmp_path / "report.html"
    page = make_page(read_history(tmp_path, now=START), now=START)
    path.write_text(page)
    found = browse(path, tmp_path / "profile", *options)
    root = re.search(r"<html[^>]*>", found)
    assert root and "data-error" not in root[0]
    figures = len(re.findall(r'<div class="figure', page))
    assert f'data-drawn="{figures}"' in root[0]
    drawn = re.sub(r"<script.*?</script>", "", found, flags=re.DOTALL)
    assert drawn.count('class="main-svg"') >= 2 * figures
    assert len(re.findall(r'<path class="js-line"[^>]* d="M', drawn)) > 30
    assert f"stroke: {blue}" in drawn
    assert ">align1</text>" in drawn, "stages are named above the curve"


def test_a_script_that_fails_is_told_on_the_page(tmp_path):
    """The proof that the test above sees errors: figures that are none."""
    RichRun(tmp_path, steps=600).write()
    page = make_page(read_history(tmp_path, now=START), now=START)
    path = tmp_path / "report.html"
    path.write_text(page.replace('id="figures">{', 'id="figures">'))
    found = browse(path, tmp_path / "profile")
    assert 'data-error="' in found
    assert re.search(r'<p class="notice" id="failed">The curves could not be drawn: <span>[^<]+</span>', found)


def test_neither_a_name_nor_a_foreign_script_does_anything(tmp_path):
    """The second: one that got into the page in some other way is stopped by the page's policy."""
    RichRun(tmp_path, steps=600).write()
    evil = "<img src=x onerror=alert(1)>"
    for path in (*tmp_path.glob("*.json*"), *tmp_path.glob("data/*")):
        path.write_text(path.read_text().replace('"align1"', json.dumps(evil)).replace("train_notes", "<b>bold</b>"))
    path = tmp_path / "report.html"
    page = make_page(read_history(tmp_path, now=START), now=START)
    path.write_text(page.replace("</main>", "<script>document.title = 'owned'</script></main>"))
    found = browse(path, tmp_path / "profile", "--window-size=1360,900")
    assert "<title>owned" not in found
    assert 'data-drawn="' in found
    drawn = re.sub(r"<script.*?</script>", "", found, flags=re.DOTALL)
    assert "<img" not in drawn
    assert "<b>bold" not in drawn
    assert "font-weight" not in "".join(re.findall(r"<tspan[^>]*>bold", drawn)), "nor does Plotly make it bold"
    assert re.search(r"<text[^>]*>&lt;img src=x", drawn), "the stage's name above its curve"


def test_curves_zoom_together_and_have_switches(tmp_path):
    RichRun(tmp_path, steps=600, ends=False).write()
    path = tmp_path / "report.html"
    path.write_text(make_page(read_history(tmp_path, now=START), now=START))
    with browser(tmp_path / "profile") as page:
        page.open(path.as_uri(), 1360, 900)
        page.wait("document.documentElement.dataset.drawn")
        layout = "document.getElementById('{}')._fullLayout"
        ids = page.run("[...document.querySelectorAll('.figure')].map(figure => figure.id)")
        loss, other = layout.format("loss"), layout.format(next(id for id in ids if id not in ("loss", "timeline")))
        whole, session = page.run(f"{other}.xaxis.range"), page.run(f"{layout.format('timeline')}.xaxis.range")
        page.run("Plotly.relayout('loss', { 'xaxis.range[0]': 100, 'xaxis.range[1]': 200 }).then(() => 1)")
        page.wait(f"{other}.xaxis.range[0] === 100 && {other}.xaxis.range[1] === 200")
        assert page.run(f"{layout.format('timeline')}.xaxis.range") == session
        assert page.run(f"{loss}.xaxis.range") == [100, 200] != whole
        page.run("document.querySelector('[data-log=loss]').click()")
        page.wait(f"{loss}.yaxis.type === 'log'")
        assert page.run(f"{loss}.xaxis.range") == [100, 200], "is still zoomed"
        page.run("document.querySelector('[data-figure=loss]').click()")
        page.wait("document.getElementById('loss')._fullData.some(trace => trace.visible === false)")
        assert page.run("document.querySelector('[data-figure=loss]').getAttribute('aria-pressed')") == "false"
        assert page.run(f"{loss}.yaxis.type") == "log"
        assert page.run("document.documentElement.dataset.error === undefined")

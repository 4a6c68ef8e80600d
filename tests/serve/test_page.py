"""The page in a real browser: a song is uploaded, drawn, asked about, tagged; what no browser sends is refused."""

import contextlib
import io
import json
import re
import time
from pathlib import Path
from unittest import mock

import httpx
import pytest

from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.tags import TAGS
from mufun_jax.serve.limits import Limits
from tests.serve.browser import Browser, browser
from tests.serve.served import EndlessMuFun, Served, served, tiny_mufun, wait_for, write_song

LIMITS = Limits(upload_bytes=2**18, body_bytes=2**20, song_seconds=20, visits=3)
IDLE = "document.querySelector('#stop').disabled"
BARS = "document.querySelectorAll('#waveform .bars rect').length > 100"
HEARD = "/were heard/.test(document.querySelector('#note').innerText)"
TAGGED = "document.querySelectorAll('#tags .cm-line').length == 4"
SECONDS = 6.0
TEXT = "Is it <b>fast</b>, *loud* & &lt;?"
WATCH = """
seen = [];
new MutationObserver(() => seen.push(document.querySelector('#chat').innerText))
  .observe(document.querySelector('#chat'), {childList: true, subtree: true, characterData: true})
"""
# Gradio makes statistics of its queue, which nobody asks for, in a way that pandas will no longer have.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    with served(lambda: model, tmp_path_factory.mktemp("page") / "uploads", LIMITS) as server:
        yield server


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    return write_song(tmp_path_factory.mktemp("songs") / "my song.wav", SECONDS)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


def opened(page: Browser, server: Served, song: Path | None, **size: int) -> None:
    page.call("Page.navigate", url="about:blank")
    wait_for(lambda: not uploaded(server), 60)
    page.events.clear()
    page.open(server.url, **size)
    page.wait("document.querySelector('#ask') && document.querySelector('#song input[type=file]')")
    if song is not None:
        page.choose_file("#song input[type=file]", song)
        page.wait(BARS)


def ask(page: Browser, question: str, answers: int) -> str:
    """The answer, when it is whole."""
    page.write("#question textarea, #question input", question)
    page.wait(f"document.querySelectorAll('#chat .bot.message').length == {answers} && {IDLE} && {HEARD}")
    return page.run("[...document.querySelectorAll('#chat .bot.message')].at(-1).innerText.trim()")


def note(page: Browser) -> str:
    return page.run("document.querySelector('#note').innerText.trim()")


def uploaded(server: Served) -> list[Path]:
    return [path for path in server.uploads.rglob("*") if path.is_file()]


@pytest.fixture
def two_tags():
    """A model that has learned nothing says much. Afterwards all tags are there again, in their order."""
    with mock.patch.dict(TAGS, {name: TAGS[name] for name in ("key", "tempo")}, clear=True):
        yield


def test_a_song_is_asked_about_tagged_and_all_of_it_is_python(page, server, model, song, two_tags, monkeypatch):
    for part in ("page", "visit"):
        monkeypatch.setattr(f"mufun_jax.serve.{part}.NEW_TOKENS", 16)
        monkeypatch.setattr(f"mufun_jax.serve.{part}.TAG_TOKENS", 64)
    opened(page, server, song)
    assert [path.name for path in uploaded(server)] == ["my song.wav"]
    heights = page.run(
        "[...document.querySelectorAll('#waveform .bars rect')].map((bar) => +bar.getAttribute('height'))"
    )
    assert heights[5] < heights[120] < heights[-5], "the song swells"

    page.run(WATCH)
    ask(page, "Tempo?", 1)
    assert len(set(page.run("seen"))) > 3, "the answer is streamed"
    assert note(page).startswith("4 s of the song were heard, from 0 s on; the 2 s after that were not")

    page.drag(page.box("#waveform svg"), 0.25, 0.75)
    chosen = page.wait("+document.querySelector('#start input').value && +document.querySelector('#end input').value")
    assert chosen == pytest.approx(4.5, abs=0.1)
    assert page.run("+document.querySelector('#start input').value") == pytest.approx(1.5, abs=0.1)
    assert page.run("document.querySelectorAll('#waveform .part, #waveform .edge').length") == 3
    answers = [ask(page, "Tempo?", 2), ask(page, TEXT, 3)]
    assert re.match(r"3 s of the song were heard, from 1\.\d+ s on", note(page))
    page.click("#tag")
    tags = json.loads(page.wait(f"{IDLE} && {TAGGED} && document.querySelector('#tags .cm-content').innerText"))
    assert set(tags) == {"key", "tempo"}
    asked = page.run("[...document.querySelectorAll('#chat .user.message')].map((one) => one.innerText.trim())")
    assert asked[0] == "Tempo?"
    assert re.fullmatch(r"\[1\.\d+–4\.\d+ s\] " + re.escape(TEXT), asked[2])

    code = page.run("document.querySelector('#python .cm-content').innerText")
    loads = []
    monkeypatch.setattr(MuFun, "from_pretrained", lambda *names, **options: loads.append((names, options)) or model)
    monkeypatch.chdir(song.parent)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    assert loads == [(("model",), {"dtype": "float32"})]
    *texts, tagged = printed.getvalue().splitlines()
    assert [text or "(no answer)" for text in texts] == answers
    assert json.loads(tagged) == tags

    assert page.hosts() == {server.url.removeprefix("http://")}
    assert page.complaints() == []


def test_mistakes_are_told_in_a_line(page, server, song, tmp_path):
    opened(page, server, None)
    page.write("#question textarea, #question input", "Tempo?")
    page.wait("document.querySelector('#note .error')?.innerText == 'Give a song first: drop one, or record it'")
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"no sound " * 100)
    page.choose_file("#song input[type=file]", noise)
    page.wait("/^noise.wav: cannot be decoded/.test(document.querySelector('#note .error').innerText)")
    wait_for(lambda: not uploaded(server))
    page.click("#song [aria-label=Clear]")
    page.wait("document.querySelector('#song input[type=file]')")
    page.choose_file("#song input[type=file]", song)
    page.wait(BARS)
    page.run("document.querySelector('#start input').select()")
    page.write("#start input", "77")
    page.wait(r"/^\d*77\d* to 6 s is no part of the song/.test(document.querySelector('#note .error').innerText)")
    assert page.complaints() == []


def test_a_song_is_gone_when_it_is_replaced_or_the_page_is_left(page, server, song, tmp_path):
    opened(page, server, song)
    page.click("#song [aria-label=Clear]")
    wait_for(lambda: not uploaded(server))
    page.wait("document.querySelector('#song input[type=file]')")
    page.choose_file("#song input[type=file]", write_song(tmp_path / "other.wav", 1.0))
    page.wait(BARS)
    assert [path.name for path in uploaded(server)] == ["other.wav"]
    page.call("Page.navigate", url="about:blank")
    wait_for(lambda: not uploaded(server))


def test_it_fits_a_phone(page, server, song):
    opened(page, server, song, width=390, height=844)
    ask(page, "Tempo?", 1)
    page.wait("document.querySelector('#python .cm-content')")
    assert page.run("document.documentElement.scrollWidth") == 390


def test_stop_and_leaving_end_the_answer(page, tmp_path, song):
    with served(lambda: tiny_mufun(EndlessMuFun), tmp_path / "uploads", LIMITS) as server:
        opened(page, server, song)
        for leaves in (False, True):
            EndlessMuFun.ended.clear()
            page.write("#question textarea, #question input", "Tempo?")
            page.wait(f"/on and on/.test(document.querySelector('#chat').innerText) && !{IDLE}")
            if leaves:
                page.call("Page.navigate", url="about:blank")
            else:
                page.click("#stop")
                page.wait(f"{IDLE} && document.querySelector('#note').innerText == 'Stopped'")
            assert EndlessMuFun.ended.wait(10)
            wait_for(lambda: server.worker.running is None)
        wait_for(lambda: not uploaded(server))


# --- what no browser sends -------------------------------------------------------------------------------------------


def join(server: Served, *data: object) -> httpx.Response:
    body = {"data": data, "fn_index": 0, "session_hash": "stranger", "event_data": None, "trigger_id": None}
    return httpx.post(f"{server.url}/gradio_api/queue/join", json=body)


def test_only_uploaded_files_can_be_named(server, song, tmp_path):
    kind = {"meta": {"_type": "gradio.FileData"}}
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("song.wav", song.read_bytes())})
    (path,) = answer.json()
    (server.uploads / "link").symlink_to(song)
    assert join(server, {"path": path, **kind}).status_code == 200
    for wrong in (
        {"path": "/etc/passwd", **kind},
        {"path": str(song), **kind},
        {"path": "song.wav", **kind},
        {"path": f"{server.uploads}/../../songs0/my song.wav", **kind},
        {"path": str(server.uploads / "link"), **kind},
        {"path": "http://127.0.0.1:1/song.wav", **kind},
        {"path": path, "url": "http://127.0.0.1:1/song.wav", **kind},
        {"path": path, "url": "file:///etc/passwd", **kind},
        {"path": None, "url": "https://example.org/song.wav", **kind},
        {"path": [path], **kind},
        [{"deep": {"path": "/etc/passwd", **kind}}],
    ):
        assert join(server, wrong).status_code == 403, wrong
    (server.uploads / "link").unlink()
    wait_for(lambda: Path(path).exists())


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file=../../etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/stream/x/close",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/api/ask",
        "/gradio_api/runs",
        "/gradio_api/vibe-code",
        "/config",
        "/monitoring",
        "/docs",
        "/openapi.json",
    ],
)
def test_ways_that_the_page_has_no_use_for_are_shut(server, path):
    for method in ("GET", "POST"):
        assert httpx.request(method, f"{server.url}{path}").status_code in (403, 404)


def test_an_upload_has_a_limit(server):
    for size in (2**18 + 1, 2**20):
        answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("song.wav", b"x" * size)})
        assert answer.status_code == 413
    assert not [path for path in uploaded(server) if path.stat().st_size >= 2**18]


@pytest.mark.parametrize("body", [b"", b"no json", b'{"data":' + b"[" * 100_000, b"[" + b" " * 1_000_001])
def test_a_question_that_is_none(server, body):
    assert httpx.post(f"{server.url}/gradio_api/queue/join", content=body).status_code in (400, 413)


def test_the_oldest_visit_gives_way(server, song):
    """Three are kept; whoever opens many loses the first."""
    paths = []
    for number in range(5):
        answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": (f"{number}.wav", song.read_bytes())})
        paths.append(Path(answer.json()[0]))
        file = {"path": str(paths[-1]), "meta": {"_type": "gradio.FileData"}}
        body = {"data": [file], "fn_index": 0, "session_hash": f"visit {number}"}
        assert httpx.post(f"{server.url}/gradio_api/queue/join", json=body).status_code == 200
        time.sleep(0.1)
    wait_for(lambda: [path.exists() for path in paths] == [False, False, True, True, True])

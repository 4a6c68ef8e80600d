"""OpenAI's own client asks a real server. What it asks wrongly is told with 4xx; who has gone leaves nothing behind."""

import asyncio
import base64
import json
import socket
import tempfile
import threading
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from mufun_jax.generate.constraint import Constraint
from mufun_jax.serve.chat_request import ChatRequest
from mufun_jax.serve.limits import Limits
from tests.serve.served import EndlessMuFun, served, tiny_mufun, wait_for, write_song

LIMITS = Limits(upload_bytes=2**17, body_bytes=700_000, audio_files=3, song_seconds=20, new_tokens=100, waiting=4)
QUESTION = "What is this?"
SAMPLED: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9, "seed": 1, "max_tokens": 12}  # a text with some variety


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """Where the server's temporary files go: nothing may stay."""
    folder = tmp_path_factory.mktemp("temporary")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def server(model, temporary, tmp_path_factory):
    with served(lambda: model, tmp_path_factory.mktemp("serve") / "uploads", LIMITS) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    return write_song(tmp_path_factory.mktemp("songs") / "song.wav", 3.6)


@pytest.fixture(autouse=True)
def nothing_stays(server, temporary):
    yield
    wait_for(lambda: server.worker.running is None and not server.worker.waiting and not list(temporary.iterdir()))


def audio(song, **more) -> dict[str, Any]:
    data = base64.b64encode(song.read_bytes()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav", **more}}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


def ask(client, *messages: Any, **options) -> Any:
    return client.chat.completions.create(model="mufun", messages=list(messages), **{"max_tokens": 6, **options})


def test_a_question_gets_what_python_gets(client, model, song):
    answer = ask(client, user(audio(song), QUESTION))
    expected = model.answer([_question(model, song)], max_new_tokens=6)[0]
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].logprobs is None
    assert answer.usage.completion_tokens == len(expected.tokens) == 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6
    (heard,) = answer.mufun["heard"]
    assert (heard["file"], heard["seconds_used"], heard["windows"]) == ("song 1", 3.6, 4)


def _question(model, song, prompt=f"<audio>\n{QUESTION}", **more):
    from mufun_jax.generate.question import make_question

    return make_question(prompt, song, **more)


def test_several_turns_songs_and_what_the_system_says(client, model, song, tmp_path):
    other = write_song(tmp_path / "other.wav", 1.0, 700)
    messages = [
        {"role": "system", "content": "Be brief."},
        user(audio(song), "Which key?"),
        {"role": "assistant", "content": "A"},
        user("And", audio(other), "this?"),
    ]
    answer = ask(client, *messages)
    history = [("Be brief.\n<audio>\nWhich key?", "A")]
    assert answer.choices[0].message.content == model.chat(
        "And<audio>\nthis?", [song, other], history=history, max_new_tokens=6
    )
    without = ask(client, *messages[1:])
    assert 0 < answer.usage.prompt_tokens - without.usage.prompt_tokens < 10, "of what the system says"


def test_a_stream_is_the_answer_in_pieces_with_its_log_probabilities(client, song):
    whole = ask(client, user(audio(song), QUESTION), logprobs=True, **SAMPLED)
    options: dict[str, Any] = {"stream": True, "logprobs": True, "stream_options": {"include_usage": True}}
    chunks = list(ask(client, user(audio(song), QUESTION), **SAMPLED, **options))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    pieces = [delta.content for delta in deltas if delta.content]
    assert len(pieces) > 2
    assert "".join(pieces) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    (told,) = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices and chunk.choices[0].logprobs]
    assert told.content == whole.choices[0].logprobs.content
    assert chunks[-1].usage == whole.usage


def test_log_probabilities_are_those_of_the_model(client, model, song):
    found = ask(client, user(audio(song), QUESTION), logprobs=True).choices[0].logprobs.content
    expected = model.answer([_question(model, song)], max_new_tokens=6)[0]
    np.testing.assert_allclose([one.logprob for one in found], expected.log_probabilities, rtol=1e-6)
    assert b"".join(bytes(one.bytes) for one in found).decode(errors="replace").strip() == expected.text


def test_sampling_is_that_of_the_seed(client, song):
    options = [{}, {}, {"seed": 2**40 + 2}, {"temperature": 0}]
    texts = [ask(client, user(audio(song), QUESTION), **SAMPLED | one).choices[0].message.content for one in options]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_an_answer_ends_before_a_stop_string(client, song):
    whole = ask(client, user(audio(song), QUESTION), **SAMPLED).choices[0].message.content
    stop = whole[len(whole) // 2 :][:2]
    for form in (stop, ["never", stop]):
        choice = ask(client, user(audio(song), QUESTION), stop=form, **SAMPLED).choices[0]
        assert choice.message.content == whole[: whole.index(stop)].rstrip()
        assert choice.finish_reason == "stop"


def test_an_answer_follows_a_schema(client, song):
    schema = {"type": "object", "properties": {"key": {"enum": ["C", "D"]}}, "required": ["key"]}
    schema["additionalProperties"] = False
    form = {"type": "json_schema", "json_schema": {"name": "key", "schema": schema}}
    answer = ask(client, user(audio(song), QUESTION), max_tokens=60, response_format=form)
    assert json.loads(answer.choices[0].message.content)["key"] in ("C", "D")


def test_only_a_segment_is_heard(client, model, song):
    answer = ask(client, user(audio(song, segment=[0.5, 3.25]), QUESTION))
    (heard,) = answer.mufun["heard"]
    assert (heard["start"], heard["seconds_used"]) == (0.5, 2.75)
    assert answer.choices[0].message.content == model.chat(QUESTION, song, [0.5, 3.25], max_new_tokens=6)


def test_a_warning_names_no_folder(client, song):
    (heard,) = ask(client, user(audio(song, segment=[1, 9]), QUESTION)).mufun["heard"]
    assert heard["warnings"] == ["song 1: segment ends at 9 s, but the file at 3.600 s; what is there is used"]


def test_the_models(client):
    assert [model.id for model in client.models.list()] == ["mufun"]


LONG = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "minLength": 400}}}
IMPOSSIBLE = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}


@pytest.mark.parametrize(
    ("messages", "options", "reason"),
    [
        (lambda s: [user(audio(s))], {}, "the question is empty"),
        (lambda s: [user(audio(s), " \n")], {}, "the question is empty"),
        (lambda s: [user(QUESTION)], {}, "no song: send one as an input_audio part"),
        (lambda s: [user(*[audio(s)] * 4, QUESTION)], {}, "4 songs; at most 3"),
        (lambda s: [user(audio(s), "What is <audio>?")], {}, "<audio> stands in a text"),
        (lambda s: [user(audio(s, segment=[4, 5]), QUESTION)], {}, "song 1: segment starts at 4 s, but the file ends"),
        (lambda s: [user(audio(s, segment=[2, 1]), QUESTION)], {}, "song 1: segment 2 to 1 s ends before"),
        (lambda s: [user(audio(s, segment=[0, 1, 2]), QUESTION)], {}, "segment: Tuple should have at most 2 items"),
        (lambda s: [user(audio(s, format="mid"), QUESTION)], {}, "input_audio.format 'mid'"),
        (lambda s: [user(audio(s, data="/etc/passwd"), QUESTION)], {}, "song 1: input_audio.data is no base64"),
        (lambda s: [user(audio(s, data="http://127.0.0.1/song.wav"), QUESTION)], {}, "is no base64"),
        (lambda s: [user(audio(s, data=""), QUESTION)], {}, "song 1: empty audio file"),
        (lambda s: [user(audio(s, data="bm9uc2Vuc2U="), QUESTION)], {}, "song 1: cannot be decoded"),
        (lambda s: [user(audio(s, data="A" * 200_000), QUESTION)], {}, "song 1: more than 0.125 MiB"),
        (lambda s: [user({"type": "image_url", "image_url": {"url": "file:///x"}})], {}, "does not match any of"),
        (lambda s: [user({"type": "input_audio", "input_audio": {"path": "/x"}})], {}, "data: Field required"),
        (lambda s: [user(audio(s), "x" * 20_001)], {}, "more than 20000 bytes"),
        (lambda s: [{"role": "assistant", "content": "A"}, user(audio(s), "q")], {}, "answers none of the user's"),
        (lambda s: [user(audio(s), "q"), {"role": "assistant", "content": "A"}], {}, "must be the user's"),
        (lambda s: [{"role": "system", "content": [audio(s)]}, user("q")], {}, "songs come from the user"),
        (lambda s: [{"role": "tool", "content": "A", "tool_call_id": "1"}], {}, "messages.0.role"),
        (lambda s: [], {}, "messages: List should have at least 1 item"),
        (lambda s: [user(audio(s), "q")], {"max_tokens": 101}, "max_tokens 101: at most 100"),
        (lambda s: [user(audio(s), "q")], {"max_tokens": 0}, "max_tokens"),
        (lambda s: [user(audio(s), "q")], {"temperature": -1}, "temperature"),
        (lambda s: [user(audio(s), "q")], {"n": 2}, "n: "),
        (lambda s: [user(audio(s), "q")], {"logprobs": True, "top_logprobs": 3}, "top_logprobs"),
        (lambda s: [user(audio(s), "q")], {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        (lambda s: [user(audio(s), "q")], {"response_format": {"type": "xml"}}, "response_format.type"),
        (lambda s: [user(audio(s), "q")], {"response_format": {"type": "json_schema", "json_schema": "x"}}, "json_sch"),
        (lambda s: [user(audio(s), "q")], {"response_format": IMPOSSIBLE}, "the answer's form cannot be used"),
        (lambda s: [user(audio(s), "q")], {"response_format": LONG}, "the answer was not complete after 6 tokens"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_is_wrong_is_told(client, song, messages, options, reason, stream):
    """In a stream too: with a status where nothing was said yet, else with an event."""
    kind = openai.BadRequestError
    if stream and options.get("response_format") is LONG:
        kind = openai.APIError
    with pytest.raises(kind) as caught:
        for _ in ask(client, *messages(song), stream=stream, **options):
            pass
    assert reason in caught.value.message
    assert "/mufun-" not in caught.value.message
    assert caught.value.type == "invalid_request_error"


def test_a_song_that_is_too_long(client, tmp_path):
    long = write_song(tmp_path / "long.ogg", 21)
    with pytest.raises(openai.BadRequestError, match="song 1: 21 s long, where at most 20 s are taken"):
        ask(client, user(audio(long), QUESTION))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"no json", 400),
        (b"[]", 400),
        (b'{"messages":' + b"[" * 100_000, 400),
        (b'{"messages":[{"role":"user","content":"\\ud800"}]}', 400),
        (b'{"messages":[{"role":"user","content":"q"}],"temperature":NaN}', 400),
        (b"\xff\xfe", 400),
        (b" " * 700_001, 413),
    ],
)
def test_a_body_that_is_none(server, body, status):
    found = httpx.post(f"{server.url}/v1/chat/completions", content=body)
    assert found.status_code == status
    assert found.json()["error"]["type"] == "invalid_request_error"


def test_a_body_that_is_too_long_and_does_not_say_so(server):
    found = httpx.post(f"{server.url}/v1/chat/completions", content=iter([b"x" * 400_000] * 2))
    assert found.status_code == 413


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/chat/completions", 405), ("POST", "/images", 404)])
def test_what_is_not_there(server, method, path, status):
    found = httpx.request(method, f"{server.url}/v1{path}")
    assert found.status_code == status
    assert found.json()["error"]["message"].startswith(f"{method} /v1{path}: ")


def test_a_failure_of_ours_is_told_without_its_words(server, client, model, song, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(model, "stream_answer", fails)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError, match="the server has failed") as caught:
            ask(client, user(audio(song), QUESTION), stream=stream)
        assert "secret" not in caught.value.message
    monkeypatch.undo()
    assert ask(client, user(audio(song), QUESTION)).choices


def test_a_model_that_cannot_be_loaded_is_told(tmp_path, song, server):
    def load():
        raise ValueError("secret")

    with served(load, tmp_path / "uploads") as broken, OpenAI(base_url=f"{broken.url}/v1", api_key="x") as client:
        with pytest.raises(openai.InternalServerError, match="the model cannot be loaded") as caught:
            ask(client.with_options(max_retries=0), user(audio(song), QUESTION))
        assert caught.value.status_code == 503


# --- clients that go away, and many at once --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endless(temporary, tmp_path_factory):
    with served(lambda: tiny_mufun(EndlessMuFun), tmp_path_factory.mktemp("endless") / "uploads", LIMITS) as server:
        yield server


def sent(server, song, **options) -> socket.socket:
    """A connection on which a question was sent."""
    body = json.dumps({"messages": [user(audio(song), QUESTION)], **options}).encode()
    address = server.url.removeprefix("http://")
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_job_of_a_client_that_goes_away_ends(endless, song, stream, temporary):
    EndlessMuFun.started.clear()
    EndlessMuFun.ended.clear()
    with sent(endless, song, stream=stream) as connection:
        assert EndlessMuFun.started.wait(20)
        if stream:
            assert b"on and" in connection.recv(4096) + connection.recv(4096)
        assert list(temporary.iterdir()), "the song is there as long as it is asked about"
    assert EndlessMuFun.ended.wait(5)
    wait_for(lambda: endless.worker.running is None and not list(temporary.iterdir()))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_goes_away_leaves_the_line(endless, song, stream, temporary):
    EndlessMuFun.started.clear()
    with sent(endless, song):
        assert EndlessMuFun.started.wait(20)
        with sent(endless, song, stream=stream):
            wait_for(lambda: endless.worker.waiting == 1)
        wait_for(lambda: endless.worker.waiting == 0)
        assert endless.worker.running is not None
        assert len(list(temporary.iterdir())) == 1
    wait_for(lambda: endless.worker.running is None)


def test_a_body_that_never_ends_is_no_job(endless, song):
    address = endless.url.removeprefix("http://")
    with socket.create_connection(tuple(address.split(":"))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nContent-Length: 1000\r\n\r\n{{"
        connection.sendall(head.encode())
    assert endless.worker.running is None
    assert httpx.get(f"{endless.url}/health").json() == {"status": "ok", "loaded": True, "waiting": 0}


def test_fifty_clients_at_once(server, song, model):
    """One is answered after another, as many as there is room for; the others are told to come back."""
    expected = model.chat(QUESTION, song, max_new_tokens=4)
    body = {"messages": [user(audio(song), QUESTION)], "max_tokens": 4}

    async def all_at_once() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            url = f"{server.url}/v1/chat/completions"
            return await asyncio.gather(
                *(client.post(url, json={**body, "stream": number % 2 == 0}) for number in range(50))
            )

    found = asyncio.run(all_at_once())
    assert {answer.status_code for answer in found} == {200, 429}
    for answer in found:
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "5"
            assert answer.json()["error"]["type"] == "rate_limit_error"
        elif answer.headers["content-type"] == "application/json":
            assert answer.json()["choices"][0]["message"]["content"] == expected
        else:
            assert answer.text.endswith("data: [DONE]\n\n")
    assert sum(answer.status_code == 200 for answer in found) >= LIMITS.waiting


def test_a_client_that_is_told_to_come_back_does(server, song):
    """OpenAI's client tries again by itself: all of ten get their answer."""
    texts: list[str] = []

    def one() -> None:
        with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=20) as client:
            texts.append(ask(client, user(audio(song), QUESTION)).choices[0].message.content)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(texts) == 4
    assert len(set(texts)) == 1


def test_a_json_object_is_a_form_too():
    request = ChatRequest.model_validate({"messages": [user(QUESTION)], "response_format": {"type": "json_object"}})
    assert request.constraint == Constraint.json()

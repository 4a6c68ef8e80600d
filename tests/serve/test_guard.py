"""Who is let in: this machine without a token, whoever has it with one; no other page, and nothing too large."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mufun_jax.serve.guard import Guard

TOKEN = "a-long-token"
HERE = "http://127.0.0.1:7860"


async def length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())), headers={"X-Frame-Options": "ALLOWALL"})


APP = Starlette(routes=[Route("/{rest:path}", length, methods=["GET", "POST"])])


def fetch(url: str = f"{HERE}/", token: str | None = None, method: str = "GET", **options) -> httpx.Response:
    async def fetched() -> httpx.Response:
        transport = httpx.ASGITransport(Guard(APP, token=token, body_bytes=1000))
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.request(method, url, **options)

    return asyncio.run(fetched())


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "localhost:80", "[::1]:7860"])
def test_this_machine_by_its_names(host):
    assert fetch(headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:7860", "127.0.0.1.evil.example", "localhost.evil", "", "[::1", "10.0.0.1"]
)
def test_no_other_name_leads_here(host):
    """A stranger's page whose name was pointed at this machine would send its own name."""
    answer = fetch(headers={"Host": host})
    assert (answer.status_code, answer.text) == (403, "this server answers to localhost only\n")


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:7861", "http://127.0.0.1"])
def test_no_other_page_gets_an_answer(origin, token):
    headers = {"Origin": origin, "Authorization": f"Bearer {TOKEN}"}
    answer = fetch(f"{HERE}/v1/chat/completions", token, "POST", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["message"] == "requests of other pages are not answered"
    assert fetch(token=token, headers={**headers, "Origin": HERE}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Cookie": "mufun_token=wrong"},
        {"Cookie": 'mufun_token="'},
        {"Authorization": "Bearer ä".encode()},
    ],
)
def test_without_the_token_nobody_is_answered(headers):
    answer = fetch(f"{HERE}/v1/models", TOKEN, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"
    assert fetch(f"{HERE}/?token=wrong", TOKEN, headers=headers).status_code == 401


def test_with_the_token_any_name_leads_here():
    headers = {"Host": "music.example", "Authorization": f"Bearer {TOKEN}"}
    assert fetch(token=TOKEN, headers=headers).status_code == 200


def test_a_browser_exchanges_the_token_for_a_cookie():
    answer = fetch(f"{HERE}/?token={TOKEN}&x=1", TOKEN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?x=1")
    cookie, *kind = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict"} <= set(kind)
    assert fetch(token=TOKEN, headers={"Cookie": f"other=1; {cookie}"}).status_code == 200


@pytest.mark.parametrize("size", [1000, 1001])
@pytest.mark.parametrize("tells", [True, False], ids=["content-length", "chunked"])
def test_a_body_has_a_limit_whether_it_says_its_length_or_not(size, tells):
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    answer = fetch(f"{HERE}/v1/x", None, "POST", content=b"x" * size if tells else chunks())
    assert answer.status_code == (200 if size == 1000 else 413)
    assert answer.text == "1000" if size == 1000 else answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("said", ["-1", "x", "1e3"])
def test_a_length_that_is_none(said):
    assert fetch(method="POST", headers={"Content-Length": said}, content=b"").status_code == 413


def test_every_answer_says_what_a_browser_may_do_with_it():
    for answer in (fetch(), fetch(headers={"Host": "evil.example"}), fetch(token=TOKEN)):
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers.get_list("x-frame-options") == ["DENY"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers

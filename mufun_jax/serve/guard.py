"""What every request passes first: whose it is, where it comes from, and how large it is."""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
_COOKIE = "mufun_token"
_HEADERS = {
    # Gradio's page has scripts and styles in its HTML, and compiles templates: that much must be allowed.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


class Guard:
    """Lets through what comes from this server's own page or from a client that is no page, and is not too large.

    Without a `token` the server listens on this machine only, and the name that it is called by must be this
    machine's: a page of a stranger whose name was made to lead here is refused. With a `token`, who has it is let
    through: as a bearer, or by the cookie that `/?token=…` sets.
    """

    def __init__(self, app: App, *, token: str | None, body_bytes: int):
        self._app, self._token, self._body_bytes = app, token, body_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self._limited(scope, receive, _with_headers(send))

    def _refusal(self, scope: Message) -> Response | None:
        """What a request gets instead, if it is refused."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._token is None and _name(host) not in LOCAL_NAMES:
            return refused(scope, 403, "this server answers to localhost only")
        if origin is not None and urlsplit(origin).netloc != host:
            return refused(scope, 403, "requests of other pages are not answered")
        if self._token is not None and (answer := self._identified(scope, headers)) is not None:
            return answer
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._body_bytes:
            return self._too_large(scope)
        return None

    def _identified(self, scope: Message, headers: Headers) -> Response | None:
        """None for who has the token; else what they get."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if scope["path"] == "/" and self._fits(query.pop("token", "")):
            there = RedirectResponse(f"/?{urlencode(query)}" if query else "/", 303)
            there.set_cookie(_COOKIE, str(self._token), httponly=True, samesite="strict")
            return there
        kind, _, given = headers.get("authorization", "").partition(" ")
        if (kind.lower() == "bearer" and self._fits(given.strip())) or self._fits(_cookie(headers)):
            return None
        return refused(scope, 401, "give the token: `Authorization: Bearer …`, in a browser /?token=…")

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), str(self._token).encode())

    async def _limited(self, scope: Message, receive: Receive, send: Send) -> None:
        """Counts a body that did not say its length. One that is too long breaks off, and has its answer from here."""
        count, started, over = 0, False, False

        async def counted() -> Message:
            nonlocal count, over
            message = await receive()
            count += len(message.get("body", b""))
            if count <= self._body_bytes:
                return message
            if not over and not started:
                over = True
                await self._too_large(scope)(scope, receive, send)
            return {"type": "http.disconnect"}

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            if not over:
                await send(message)

        try:
            await self._app(scope, counted, noted)
        except Exception:
            if not over:
                raise

    def _too_large(self, scope: Message) -> Response:
        return refused(scope, 413, f"the request has more than {self._body_bytes / 2**20:.3g} MiB")


def refused(scope: Message, status: int, message: str) -> Response:
    """In OpenAI's shape below /v1, else in a line."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if scope["path"].startswith("/v1/"):
        kind = "authentication_error" if status == 401 else "invalid_request_error"
        error = {"message": message, "type": kind, "param": None, "code": None}
        return JSONResponse({"error": error}, status, headers)
    return PlainTextResponse(f"{message}\n", status, headers)


def _name(host: str) -> str:
    """A host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _with_headers(send: Send) -> Send:
    more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
    names = {name for name, _ in more}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in names]
            message = {**message, "headers": [*kept, *more]}
        await send(message)

    return sending

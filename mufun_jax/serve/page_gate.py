"""What stands between a browser and Gradio: only the ways that the page needs, and no files but uploaded ones.

Gradio takes a path of this machine, or an address that it fetches, wherever a file may be named in a request.
"""

import json
import os
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from mufun_jax.serve.guard import App, Message, Receive, Send, refused

_FILES = "/gradio_api/file="
_ASKS = "/gradio_api/queue/join"
_WAYS = {
    "GET": (
        *("/assets/", "/static/", "/theme.css", "/favicon.ico", "/manifest.json", "/pwa_icon"),
        *("/gradio_api/heartbeat/", "/gradio_api/queue/data", "/gradio_api/startup-events"),
        *("/gradio_api/upload_progress", _FILES),
    ),
    "POST": (_ASKS, "/gradio_api/upload"),
}
_MOST_BYTES = 1_000_000  # of a question, its chat included


class PageGate:
    """Answers 404 to what the page has no use for, and 403 where a file is named that was not uploaded."""

    def __init__(self, app: App, uploads: str):
        """`uploads`: the folder that uploaded files are in."""
        self._app, self._uploads = app, os.path.realpath(uploads) + os.sep

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        ways = _WAYS.get("GET" if scope["method"] == "HEAD" else scope["method"], ())
        if path != "/" and not path.startswith(ways):
            await refused(scope, 404, "not found")(scope, receive, send)
        elif path.startswith(_FILES) and not self._is_upload(path.removeprefix(_FILES)):
            await refused(scope, 403, "no such upload")(scope, receive, send)
        elif path.startswith(_ASKS):
            await self._asked(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _asked(self, scope: Message, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more and len(body) <= _MOST_BYTES:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > _MOST_BYTES:
            await refused(scope, 413, f"the question has more than {_MOST_BYTES} bytes")(scope, receive, send)
            return
        try:
            allowed = self._names_uploads(json.loads(body), Headers(scope=scope).get("host", ""))
        except (ValueError, RecursionError):
            await refused(scope, 400, "the question is no JSON")(scope, receive, send)
            return
        if not allowed:
            await refused(scope, 403, "only files that were uploaded here can be named")(scope, receive, send)
            return
        given = False

        async def replayed() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replayed, send)

    def _names_uploads(self, value: Any, host: str) -> bool:
        """Whether all files in a request's JSON are uploads, and all addresses this server's."""
        if isinstance(value, list):
            return all(self._names_uploads(one, host) for one in value)
        if not isinstance(value, dict):
            return True
        path, url = value.get("path"), value.get("url")
        if path is not None and not (isinstance(path, str) and self._is_upload(path)):
            return False
        if url is not None and not (isinstance(url, str) and urlsplit(url).netloc == host):
            return False
        return all(self._names_uploads(one, host) for one in value.values())

    def _is_upload(self, path: str) -> bool:
        return os.path.isabs(path) and "\0" not in path and os.path.realpath(path).startswith(self._uploads)

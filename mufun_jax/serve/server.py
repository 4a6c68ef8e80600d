"""The server: the page at /, OpenAI's interface below /v1, and /health; one process, one model."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from mufun_jax.errors import UserError
from mufun_jax.serve.completions import api
from mufun_jax.serve.guard import App, Guard
from mufun_jax.serve.limits import Limits
from mufun_jax.serve.page import CSS, Page, theme
from mufun_jax.serve.page_gate import PageGate
from mufun_jax.serve.visit import Loader
from mufun_jax.serve.worker import Worker

_GRACE = 3  # seconds that open connections are given at the end


def make_app(worker: Worker, limits: Limits, loader: Loader, uploads: str, token: str | None = None) -> App:
    """The application. It starts and closes the worker. `uploads`: an empty folder for the page's songs.

    With a `token` only who has it is answered; without, only this machine.
    """
    os.environ["GRADIO_TEMP_DIR"] = uploads
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(worker.close)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "loaded": worker.loaded, "waiting": worker.waiting}

    app.mount("/v1", api(worker, limits))
    gr.mount_gradio_app(
        app,
        Page(worker, limits, loader).blocks,
        "/",
        theme=theme(),
        css=CSS,
        footer_links=[],
        run_history=False,
        max_file_size=limits.upload_bytes,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    mount = app.routes[-1]
    mount.app = PageGate(mount.app, uploads)  # pyright: ignore[reportAttributeAccessIssue]  of Gradio
    return Guard(app, token=token, body_bytes=limits.body_bytes)


def listening_socket(host: str, port: int) -> socket.socket:
    """Raises UserError where the port is taken, or the address is none of this machine's."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as opened:
            found = opened.enter_context(socket.socket(family, kind, number))
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen()
            opened.pop_all()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is taken; choose another with --port, 0 takes any that is free") from None
        raise UserError(f"--host {host} --port {port}: cannot be listened on: {error.strerror}") from None
    return found


class Server(uvicorn.Server):
    """Answers at a socket until it is told to stop."""

    def __init__(self, make: Callable[[], App]):
        """The application is made in the event loop that it runs in: elsewhere Gradio makes, and leaves, others."""
        super().__init__(
            uvicorn.Config(
                make,
                factory=True,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=_GRACE,
            )
        )

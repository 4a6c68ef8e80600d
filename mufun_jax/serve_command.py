"""`mufun serve`: a page to ask songs on, and OpenAI's interface for programs, from one model."""

import ipaddress
import logging
import secrets
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from mufun_jax.ask_command import DType
from mufun_jax.errors import UserError

if TYPE_CHECKING:
    from mufun_jax.generate.chat import MuFun
    from mufun_jax.serve.limits import Limits


def serve(
    checkpoint: str,
    *,
    host: str,
    port: int,
    token: str | None,
    dtype: DType,
    quantize: Literal["int8"] | None,
    idle_minutes: float,
    limits: "Limits",
) -> None:
    """Answers until Ctrl-C or SIGTERM. Raises UserError for what would keep it from answering."""
    for library, name in (("gradio", "Gradio"), ("fastapi", "FastAPI"), ("uvicorn", "Uvicorn")):
        if find_spec(library) is None:
            raise UserError(f"mufun serve needs {name}, which is not installed: pip install 'mufun_jax[serve]'")
    from mufun_jax.generate.programs import keep_programs
    from mufun_jax.serve.server import Server, listening_socket, make_app
    from mufun_jax.serve.visit import Loader
    from mufun_jax.serve.worker import Worker
    from mufun_jax.weights.hub import local_folder
    from mufun_jax.weights.model_folder import fitting_tokenizer, open_model_folder

    folder = local_folder(checkpoint)
    fitting_tokenizer(folder, open_model_folder(folder).config.model)
    if token is None and not _is_local(host):
        token = secrets.token_urlsafe(24)
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise UserError("--token: at least 8 characters, of letters, digits and signs")
    _log_errors()
    keep_programs()

    def load() -> "MuFun":
        from mufun_jax.generate.chat import MuFun

        return MuFun.from_pretrained(folder, dtype, quantize=quantize)

    options: dict[str, Any] = {"dtype": dtype} if dtype != "bfloat16" else {}
    options |= {"quantize": quantize} if quantize is not None else {}
    worker = Worker(load, most_waiting=limits.waiting, idle_seconds=60 * idle_minutes)
    with listening_socket(host, port) as listening, tempfile.TemporaryDirectory(prefix="mufun-uploads-") as uploads:
        shown, number = host if ":" not in host else f"[{host}]", listening.getsockname()[1]
        at = f"http://{shown}:{number}"
        print(f"The page is at {at}/" + (f"?token={token}" if token else ""))
        print(f"OpenAI's clients are answered at {at}/v1" + (f" with the key {token}" if token else ""))
        print("Ctrl-C ends it", flush=True)
        server = Server(lambda: make_app(worker, limits, Loader(checkpoint, options), uploads, token))
        with suppress(KeyboardInterrupt):  # which Uvicorn raises again when all is closed
            server.run(sockets=[listening])


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _log_errors() -> None:
    """Failures of ours are told on standard error, where whoever runs the server sees them."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.ERROR)
    for name in ("mufun_jax", "uvicorn.error"):
        logging.getLogger(name).addHandler(handler)

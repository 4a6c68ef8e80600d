"""A tiny model behind a real server, in a thread; and one that never ends."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mufun_jax.config import SAMPLE_RATE
from mufun_jax.generate.answer import Answer
from mufun_jax.generate.chat import MuFun
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.serve.limits import Limits
from mufun_jax.serve.server import Server, listening_socket, make_app
from mufun_jax.serve.visit import Loader
from mufun_jax.serve.worker import Worker
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.tokenizer import load_tokenizer
from tests.tiny import random_params, tiny_decoder, tiny_encoder, tiny_model

# Windows of a second, four at most.
CONFIG = tiny_model(tiny_encoder(layers=1, taps=(1,)), tiny_decoder(vocab_size=512, layers=1), max_windows=4)


def tiny_mufun(kind: type[MuFun] = MuFun) -> MuFun:
    return kind(MuFunModel(CONFIG), random_params(CONFIG), load_tokenizer("nano"), inference_mesh())


class EndlessMuFun(MuFun):
    """Says the same until nobody listens; `ended` is set when it has noticed that."""

    started, ended = threading.Event(), threading.Event()

    def stream_answer(self, question: Any, **options: Any) -> Iterator[str | Answer]:
        EndlessMuFun.started.set()
        try:
            while True:
                yield "on and "
                time.sleep(0.005)
        finally:
            EndlessMuFun.ended.set()


@dataclass(frozen=True)
class Served:
    """Where a server answers, its worker, and the folder of the page's songs."""

    url: str
    worker: Worker
    uploads: Path


@contextmanager
def served(
    load: Callable[[], MuFun], uploads: Path, limits: Limits | None = None, token: str | None = None
) -> Iterator[Served]:
    limits = limits or Limits()
    worker = Worker(load, most_waiting=limits.waiting, idle_seconds=600)
    uploads.mkdir()
    with listening_socket("127.0.0.1", 0) as listening:
        loader = Loader("model", {"dtype": "float32"})
        server = Server(lambda: make_app(worker, limits, loader, str(uploads), token))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.start()
        wait_for(lambda: server.started)
        try:
            yield Served(url, worker, uploads)
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def write_song(path: Path, seconds: float, pitch: float = 440) -> Path:
    at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    swell = np.linspace(0.2, 1, len(at))
    soundfile.write(path, (0.6 * swell * np.sin(2 * np.pi * pitch * at)).astype(np.float32), SAMPLE_RATE)
    return path

"""`mufun serve` as a user starts and ends it."""

import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from mufun_jax import serve_command
from mufun_jax.serve.server import Server, listening_socket
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.weights.model_folder import save_model
from tests.serve.served import CONFIG
from tests.tiny import random_params


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(folder, CONFIG, random_params(CONFIG), load_tokenizer("nano"))
    return folder


def test_it_answers_until_it_is_told_to_stop(checkpoint):
    """On all addresses: with a token that it makes."""
    arguments = ["serve", "--checkpoint", str(checkpoint), "--port", "0", "--host", "0.0.0.0"]
    command = [sys.executable, "-m", "mufun_jax.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.match(r"The page is at http://0\.0\.0\.0:(\d+)/\?token=(\S+)", process.stdout.readline())
        assert found, process.communicate()
        port, token = found.groups()
        assert f"http://0.0.0.0:{port}/v1 with the key {token}" in process.stdout.readline()
        assert process.stdout.readline() == "Ctrl-C ends it\n"
        retrying = httpx.HTTPTransport(retries=10)
        with httpx.Client(transport=retrying, base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            assert client.get("/health").status_code == 401
            assert "MuFun" in client.get(f"/?token={token}", follow_redirects=True).text
            assert client.get("/health").json() == {"status": "ok", "loaded": False, "waiting": 0}
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_what_keeps_it_from_answering_is_a_line(run, checkpoint, tmp_path, monkeypatch):
    served: list[Server] = []
    monkeypatch.setattr(Server, "run", lambda server, sockets: served.append(server))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, words in (
            (("--port", port), f"port {port} is taken; choose another with --port"),
            (("--host", "192.0.2.1"), "--host 192.0.2.1 --port 7860: cannot be listened on"),
            (("--token", "short"), "--token: at least 8 characters"),
            (("--max-upload", "much"), "--max-upload much: write a size"),
            (("--checkpoint", tmp_path), "no model here"),
        ):
            code, _, err = run("serve", "--checkpoint", checkpoint, *arguments)
            assert (code, err.count("\n")) == (2, 1)
            assert words in err
    (checkpoint / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    assert "tokenizer.json" in run("serve", "--checkpoint", checkpoint)[2]
    (tmp_path / "tokenizer.json").rename(checkpoint / "tokenizer.json")
    assert not served
    monkeypatch.setattr(serve_command, "find_spec", lambda name: None)
    assert "pip install 'mufun_jax[serve]'" in run("serve", "--checkpoint", checkpoint)[2]


def test_on_this_machine_no_token_is_needed(run, checkpoint, monkeypatch):
    monkeypatch.setattr(Server, "run", lambda server, sockets: None)
    for host in ("localhost", "127.0.0.1"):
        code, out, _ = run("serve", "--checkpoint", checkpoint, "--host", host, "--port", "0")
        assert code == 0
        assert re.match(rf"The page is at http://{host}:\d+/\n", out)
    monkeypatch.setenv("MUFUN_TOKEN", "a-token-of-mine")
    assert "/?token=a-token-of-mine\n" in run("serve", "--checkpoint", checkpoint, "--port", "0")[1]


def test_a_port_that_is_free_can_be_had():
    with listening_socket("::1" if socket.has_dualstack_ipv6() else "127.0.0.1", 0) as found:
        assert found.getsockname()[1] > 0

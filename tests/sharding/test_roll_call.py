"""The roll call: all go on when all have come; who has not is named, to everyone, with the address."""

import socket
import threading
from contextlib import suppress

import pytest

from mufun_jax.errors import ConfigError, LostProcessError, UserError
from mufun_jax.sharding.roll_call import call_roll


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def call_all(address, numbers, count, seconds, counts=None):
    """Calls the roll in a thread for each process; their errors by number, None where it went on."""
    ended = {}

    def one(number):
        try:
            call_roll(address, number, (counts or {}).get(number, count), seconds)
            ended[number] = None
        except (LostProcessError, UserError) as error:
            ended[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_all_go_on_when_all_have_come_in_any_order(address):
    assert call_all(address, [2, 1, 3, 0], 4, 30.0) == {0: None, 1: None, 2: None, 3: None}
    assert call_all(address, [0, 1], 2, 30.0) == {0: None, 1: None}  # at once again, at the same port
    call_roll(address, 0, 1, 0.1)  # alone, nobody is waited for


def test_who_does_not_come_is_named_to_all(address):
    ended = call_all(address, [0, 2], 5, 1.0)
    assert str(ended[0]).startswith(f"process 1, 3, 4 of 5 did not come to {address} in 1 s: is it started")
    assert str(ended[2]) == f"process 2 of 5: {ended[0]}"
    assert all(isinstance(error, LostProcessError) and error.exit_code == 1 for error in ended.values())


def test_a_first_process_that_does_not_answer_is_named(address):
    with pytest.raises(
        LostProcessError, match=rf"^process 1 of 2: {address} does not answer after 0.5 s .* port open\?"
    ):
        call_roll(address, 1, 2, 0.5)


def test_a_process_that_was_started_again_takes_its_place(address):
    host, port = address.rsplit(":", 1)
    first = threading.Thread(target=call_all, args=(address, [0], 3, 30.0))
    first.start()
    early = connect(host, port)
    early.sendall(b"mufun 1 3\n")
    early.close()
    assert call_all(address, [1, 2], 3, 30.0) == {1: None, 2: None}
    first.join()


def connect(host, port):
    while True:
        try:
            return socket.create_connection((host, int(port)), timeout=5)
        except OSError:
            pass


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"mufun x 2\n", b"mufun 1\n", b"\xff" * 5000, b""])
def test_strangers_are_sent_away(address, said):
    host, port = address.rsplit(":", 1)
    ended = {}
    waiting = threading.Thread(target=lambda: ended.update(call_all(address, [0], 2, 30.0)))
    waiting.start()
    with connect(host, port) as stranger, suppress(ConnectionError, OSError):  # it may be closed before all is said
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(10) == b""
    assert call_all(address, [1], 2, 30.0) == {1: None}
    waiting.join()
    assert ended == {0: None}


def test_who_counts_otherwise_is_told(address):
    ended = call_all(address, [0, 1], 3, 5.0, counts={1: 2})
    message = "process 1 of 2 came to process 0 of 3: give all the same --processes"
    assert isinstance(ended[0], ConfigError) and str(ended[0]) == message


def test_a_port_that_is_taken_is_named(address):
    with (
        socket.create_server(("", int(address.rsplit(":", 1)[1]))),
        pytest.raises(UserError, match=rf"Address already in use.* is another program at the port of {address}\?"),
    ):
        call_roll(address, 0, 2, 1.0)

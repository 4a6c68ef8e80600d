"""A roll call before the processes of a run are joined: who is missing is named, where JAX would only give up.

Process 0 listens at the port where JAX's own service will; the others come, say who they are, and wait until all have.
"""

import socket
import time

from mufun_jax.errors import ConfigError, LostProcessError, UserError

_LONGEST_LINE = 4096  # bytes
_HELLO_SECONDS = 5.0  # that a caller has to say who it is


def call_roll(coordinator: str, number: int, count: int, seconds: float) -> None:
    """Returns when all processes have come.

    Raises:
        LostProcessError: after so many seconds some have not come, or process 0 does not answer.
        ConfigError: processes contradict one another about who and how many they are.
        UserError: the port is taken.
    """
    host, _, port = coordinator.rpartition(":")
    if count == 1:
        return
    if number == 0:
        _listen(coordinator, int(port), count, seconds)
    else:
        _report(coordinator, (host.strip("[]"), int(port)), number, count, seconds)


def _listen(coordinator: str, port: int, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    came: dict[int, socket.socket] = {}
    try:
        with _server(coordinator, port) as server:
            while len(came) < count - 1 and time.monotonic() < deadline:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    caller, _ = server.accept()
                except TimeoutError:
                    break
                number = _number_of(caller, count)
                if number is None:
                    caller.close()  # a stranger
                    continue
                if number in came:
                    came[number].close()  # it was started again
                came[number] = caller
        missing = [number for number in range(1, count) if number not in came]
        said = "go"
        if missing:
            said = (
                f"process {', '.join(map(str, missing))} of {count} did not come to {coordinator} in {seconds:g} s: "
                "is it started, with this address, and is the port open?"
            )
        for caller in came.values():
            caller.sendall(said.encode() + b"\n")
        if missing:
            raise LostProcessError(said)
    except ConfigError as error:
        for caller in came.values():
            caller.sendall(str(error).encode()[: _LONGEST_LINE - 1] + b"\n")
        raise
    finally:
        for caller in came.values():
            caller.close()


def _server(coordinator: str, port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"the processes cannot be joined ({error.strerror}); is another program at the port of {coordinator}? Take "
            "another port"
        ) from None


def _number_of(caller: socket.socket, count: int) -> int | None:
    """Who a caller says it is; None for a stranger. Raises ConfigError where it counts otherwise."""
    caller.settimeout(_HELLO_SECONDS)
    try:
        words = _read_line(caller).split()
    except OSError:
        return None
    if len(words) != 3 or words[0] != "mufun" or not all(word.isdecimal() for word in words[1:]):
        return None
    number, said = int(words[1]), int(words[2])
    if said != count or not 0 < number < count:
        caller.close()
        raise ConfigError(f"process {number} of {said} came to process 0 of {count}: give all the same --processes")
    return number


def _report(coordinator: str, address: tuple[str, int], number: int, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    last = "no connection"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(address, timeout=5) as caller:
                caller.sendall(f"mufun {number} {count}\n".encode())
                caller.settimeout(max(1.0, deadline + _HELLO_SECONDS - time.monotonic()))
                said = _read_line(caller)
        except OSError as error:
            last = error.strerror or str(error)
        else:
            if said == "go\n":
                return
            if said:
                raise LostProcessError(f"process {number} of {count}: {said.strip()}")
            last = "the connection was closed"
        time.sleep(0.2)
    raise LostProcessError(
        f"process {number} of {count}: {coordinator} does not answer after {seconds:g} s ({last}); does process 0 run "
        "there, and is the port open?"
    )


def _read_line(connection: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
        more = connection.recv(256)
        if not more:
            break
        line += more
    return line.decode(errors="replace")

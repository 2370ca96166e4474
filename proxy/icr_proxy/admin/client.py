"""`wait`, `health`, `quit`: ask a proxy's admin port, with nothing but the standard library.

A container needs no shell and no curl for its probes, and a probe starts in a few milliseconds.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from typing import TYPE_CHECKING

from icr_proxy.net import addresses
from icr_proxy.net.addresses import bracketed
from icr_proxy.redaction import printable, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104  # asked, not bound
ASK_SECONDS = 2.0
PAUSE_SECONDS = 0.1
OK = 200
METRICS_MOST = 16 << 20  # bytes
TOKEN = "X-ICR-Proxy-Admin-Token"  # noqa: S105  # the name of the header


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ASK_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ASK_SECONDS)
        self.sock.connect(self._path)


class TcpConnection(http.client.HTTPConnection):
    """HTTP over TCP; a name that is not resolved in time is an error, and no wait."""

    def connect(self) -> None:
        """Connect to the first address that answers.

        Raises:
            OSError: none does.
        """
        failure = OSError("no address")
        for address in resolve(self.host, self.port):
            try:
                self.sock = socket.create_connection(address, timeout=ASK_SECONDS)
            except OSError as error:
                failure = error
            else:
                return
        raise failure


def resolve(host: str, port: int, *, seconds: float = ASK_SECONDS) -> list[tuple[str, int]]:
    """Look a name up, in a thread if it is a name: the resolver can neither be timed nor stopped.

    Raises:
        OSError: it is not known, or not in time.
    """
    try:
        return _addresses(host, port, socket.AI_NUMERICHOST)
    except OSError:
        pass
    found: list[list[tuple[str, int]]] = []
    failed: list[OSError] = []

    def look_up() -> None:
        try:
            found.append(_addresses(host, port, 0))
        except (OSError, UnicodeError) as error:
            failed.append(error if isinstance(error, OSError) else OSError("not a name"))

    thread = threading.Thread(target=look_up, name="look-up", daemon=True)
    thread.start()
    thread.join(seconds)
    if found:
        return found[0]
    raise failed[0] if failed else TimeoutError("its name was not resolved in time")


def _addresses(host: str, port: int, flags: int) -> list[tuple[str, int]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(str(each[4][0]), port) for each in found]


def connection_to(bind: str) -> tuple[http.client.HTTPConnection, str]:
    """Prepare a connection to what is bound there, and say where it leads."""
    place, path = addresses.host_and_port(bind), addresses.unix_path(bind)
    if place is None:
        return UnixConnection(path or ""), bind
    host, port = EVERYWHERE.get(place[0], place[0]), place[1]
    return TcpConnection(host, port, timeout=ASK_SECONDS), f"{bracketed(host)}:{port}"


def token_header(token_file: Path | None) -> dict[str, str]:
    """Make the header that the admin port asks for, of the token in that file, if there is one.

    Raises:
        StartError: the file cannot be read.
    """
    if token_file is None:
        return {}
    return {TOKEN: read_secret(token_file, key="admin.token_file", patience=0).reveal()}


def ask(
    bind: str, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> str | None:
    """Give `None` if the admin port says yes, else what it says or why it cannot be asked."""
    connection, where = connection_to(bind)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        said = _legible(response.read(200)) or f"HTTP {response.status}"
    except (OSError, http.client.HTTPException) as exc:
        reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        return f"{where} cannot be asked: {reason}"
    finally:
        connection.close()
    return None if response.status == OK else said


def is_proxy(bind: str) -> bool:
    """Tell whether it is an icr-proxy that answers at an admin address."""
    place = addresses.host_and_port(bind)
    if addresses.systemd_name(bind) is not None or (place is not None and place[1] == 0):
        return False
    connection, _ = connection_to(bind)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        return b"icr_proxy_build_info" in response.read(METRICS_MOST)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _legible(data: bytes) -> str:
    """Keep the words: another program may listen there, and a terminal must not obey it."""
    text = data.decode("latin-1")
    return printable(text, instead=" ").strip()


def reach(bind: str) -> str | None:
    """Give `None` if a connection to a listener can be made, else why not; nothing is sent.

    What a listener would say depends on its TLS, its callers and what stands in front of it.
    """
    place, path = addresses.host_and_port(bind), addresses.unix_path(bind)
    try:
        if place is None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
                made.settimeout(ASK_SECONDS)
                made.connect(path or "")
            return None
        host = EVERYWHERE.get(place[0], place[0])
        socket.create_connection((host, place[1]), timeout=ASK_SECONDS).close()
    except OSError as exc:
        return f"{bind} cannot be reached: {exc.strerror or exc}"
    return None


def wait_until_ready(
    bind: str,
    *,
    timeout: float,
    attempt: Callable[[str], str | None] = lambda bind: ask(bind, "/readyz"),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Try until the proxy is ready; give the last word against it if `timeout` seconds pass."""
    deadline = clock() + timeout
    while (said := attempt(bind)) is not None:
        if clock() >= deadline:
            return said
        sleep(PAUSE_SECONDS)
    return None

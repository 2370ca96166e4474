"""An API and a caller for bodies that are too big to be held: plain sockets in threads.

Both send and check numbered pieces, so that one which is lost, doubled or swapped is noticed. The
threads spend their time in the kernel, and leave the processor to the proxy, which is measured.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.app_fixture import minted, ok, request_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1024 * 1024
PIECE = 256 * 1024
FILLER = b"0123456789abcdef" * (PIECE // 16)


def piece(number: int) -> bytes:
    """Give one piece of a body: its number, and then the same as all others."""
    return number.to_bytes(8, "big") + FILLER[8:]


def send(peer: socket.socket, size: int, *, chunked: bool, told: Callable[[int], None]) -> None:
    """Send a body of so many bytes; `told` hears how many have gone out."""
    for number in range(size // PIECE):
        data = piece(number)
        peer.sendall(b"%x\r\n%b\r\n" % (PIECE, data) if chunked else data)
        told((number + 1) * PIECE)
    if chunked:
        peer.sendall(b"0\r\n\r\n")


class Reading:
    """What comes from a peer, exactly as much as is asked for."""

    def __init__(self, peer: socket.socket) -> None:
        self._file = peer.makefile("rb", buffering=MIB)

    def head(self) -> bytes:
        lines = b""
        while not lines.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            if not line:
                raise ConnectionError("nothing more")
            lines += line
        return lines

    def body(self, head: bytes, *, pause: Callable[[int], None] = lambda _got: None) -> int:
        """Read and check a body; `pause` is called with its length so far and may take its time."""
        got = 0
        for data in self._pieces(head):
            if data != piece(got // PIECE):
                raise AssertionError(f"wrong bytes after {got}")
            got += len(data)
            pause(got)
        return got

    def small(self, head: bytes) -> bytes:
        """Read a short body with a length."""
        data: bytes = self._file.read(int(head.partition(b"Content-Length: ")[2].split()[0]))
        return data

    def _pieces(self, head: bytes) -> Iterator[bytes]:
        if b"chunked" not in head:
            for _ in range(int(head.partition(b"Content-Length: ")[2].split()[0]) // PIECE):
                yield self._file.read(PIECE)
            return
        held = bytearray()  # chunks may be cut anew on the way
        while size := int(self._file.readline(), 16):
            held += self._file.read(size)
            self._file.readline()
            while len(held) >= PIECE:
                yield bytes(held[:PIECE])
                del held[:PIECE]
        self._file.readline()


@dataclass
class BigApi:
    """`GET /down?n` sends n bytes, `POST /up` takes them; `chunked` in the target says how."""

    url: str = ""
    sent: int = 0
    taken: int = 0
    hold: threading.Event = field(default_factory=threading.Event)
    """Clear: it does not read uploads."""

    def serve(self, peer: socket.socket) -> None:
        with peer:
            reading = Reading(peer)
            while True:
                try:
                    self.one(peer, reading)
                except (OSError, ValueError):
                    return

    def one(self, peer: socket.socket, reading: Reading) -> None:
        head = reading.head()
        target = head.split(b" ")[1]
        if target.startswith(b"/app/"):
            peer.sendall(minted(1))
        elif target.startswith(b"/down"):
            size, chunked = int(target.partition(b"?")[2]), b"chunked" in target
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
            peer.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
            send(peer, size, chunked=chunked, told=lambda sent: setattr(self, "sent", sent))
        else:
            self.taken = reading.body(head, pause=lambda _got: self.wait())
            peer.sendall(ok(b"%d" % self.taken))

    def wait(self) -> None:
        self.hold.wait()


@contextmanager
def big_api() -> Iterator[BigApi]:
    api = BigApi()
    api.hold.set()
    door = socket.create_server(("127.0.0.1", 0))
    api.url = f"http://127.0.0.1:{door.getsockname()[1]}"
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                peer, _ = door.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=api.serve, args=(peer,), name="big-api"))
            threads[-1].start()

    accepting = threading.Thread(target=accept, name="big-api-door")
    accepting.start()
    try:
        yield api
    finally:
        api.hold.set()
        door.shutdown(socket.SHUT_RDWR)
        door.close()
        accepting.join()
        for thread in threads:
            thread.join()


def download(
    port: int, size: int, *, chunked: bool = False, pause: Callable[[int], None] = lambda _got: None
) -> int:
    """Get so many bytes through a proxy, check them, and say how many came."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        target = f"/down/{'chunked' if chunked else 'plain'}?{size}"
        peer.sendall(request_head(target=target))
        reading = Reading(peer)
        return reading.body(reading.head(), pause=pause)


def upload(
    port: int, size: int, *, chunked: bool = False, told: Callable[[int], None] = lambda _sent: None
) -> bytes:
    """Send so many bytes through a proxy, and give the body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        peer.sendall(request_head("POST", "/up", extra=f"{framing}\r\n"))
        send(peer, size, chunked=chunked, told=told)
        reading = Reading(peer)
        head = reading.head()
        return reading.small(head)

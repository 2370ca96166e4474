"""The real servers: nginx, Node and Go, each telling how it understood what it was sent."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
START_SECONDS = 20.0
UNDERSTOOD = "understood.log"


@dataclass(frozen=True, slots=True)
class Understood:
    """A request as a server read it, to its last byte."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    """All of them; of nginx, those that it was asked for."""
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """Give all values of a header."""
        return [value for key, value in self.headers if key == name]


@dataclass(slots=True)
class Server:
    """One that runs."""

    name: str
    port: int
    log: Path
    knows_all_headers: bool = True
    seen: int = 0
    """Lines of its log that were taken."""

    def take(self, *, until: bytes) -> list[Understood]:
        """Give what it understood since the last time, up to a request with this target."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            lines = self.log.read_text("latin-1").splitlines()[self.seen :]
            found = [self._read(json.loads(line)) for line in lines if line.startswith("{")]
            if any(each is not None and each.target == until for each in found):
                self.seen += len(lines)
                return [each for each in found if each is not None and each.target != until]
            time.sleep(0.02)
        raise TimeoutError(f"{self.name} does not say that it has understood {until!r}")

    def _read(self, line: dict[str, Any]) -> Understood | None:
        """Read a line of its log; requests that broke off are none."""
        if line["whole"] not in (True, "OK") or line.get("status", 200) != 200:
            return None
        method = line["method"].encode("latin-1")
        if self.knows_all_headers:
            headers = tuple(
                (name.encode("latin-1"), bytes.fromhex(value)) for name, value in line["headers"]
            )
            return Understood(
                method, bytes.fromhex(line["target"]), headers, bytes.fromhex(line["body"])
            )
        known = [(name, line[name]) for name in ("host", "authorization", "x-a", "content-type")]
        return Understood(
            method,
            line["target"].encode("latin-1"),
            tuple((name.encode(), value.encode("latin-1")) for name, value in known if value),
            line["body"].encode("latin-1"),
        )


@contextmanager
def node(work: Path) -> Iterator[Server]:
    """Run Node's `http`."""
    with _program("node", ["node", HERE / "echo.cjs", "0"], work) as (log, _):
        yield Server("Node", _port_in(log), log)


@contextmanager
def go(work: Path, *, compiler: str) -> Iterator[Server]:
    """Build and run Go's `net/http`."""
    binary = work / "echo"
    subprocess.run(
        [compiler, "build", "-o", binary, HERE / "echo.go"],
        check=True,
        env={"GOTOOLCHAIN": "local", "HOME": str(work), "PATH": "/usr/bin:/bin"},
    )
    with _program("go", [binary, "0"], work) as (log, _):
        yield Server("Go", _port_in(log), log)


@contextmanager
def nginx(work: Path) -> Iterator[Server]:
    """Run nginx."""
    port = _free_port()
    conf = work / "nginx.conf"
    conf.write_text(Template((HERE / "nginx.conf").read_text()).substitute(port=port, work=work))
    log = work / UNDERSTOOD
    log.touch()
    with _program("nginx", ["nginx", "-p", work, "-c", conf], work):
        _wait_for(lambda: _answers(port), what="nginx")
        yield Server("nginx", port, log, knows_all_headers=False)


@contextmanager
def _program(
    name: str, command: Sequence[str | Path], work: Path
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    out = work / f"{name}.out"
    with out.open("wb") as stream, (work / f"{name}.err").open("wb") as errors:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=stream, stderr=errors
        )
        try:
            yield out, process
        finally:
            process.terminate()
            process.wait()


def _port_in(log: Path) -> int:
    _wait_for(lambda: b"\n" in log.read_bytes(), what=log.name)
    return int(log.read_bytes().splitlines()[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(reached: Any, *, what: str) -> None:
    end = time.monotonic() + START_SECONDS
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not start")
        time.sleep(0.02)

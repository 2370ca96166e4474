import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner

from icr_proxy.admin import client
from icr_proxy.admin.client import ask, reach, wait_until_ready
from icr_proxy.cli.main import commands

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
NOT_READY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10\r\n\r\nnot ready\n"


class AdminPort:
    """A listener in a thread that gives one scripted answer after the other, then the last."""

    def __init__(self, *answers: bytes, host: str = "127.0.0.1") -> None:
        self._answers = answers
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family)
        self.port: int = self._socket.getsockname()[1]
        self.heads: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                head = connection.recv(65536)
                if not head:
                    return  # the knock by which `close` wakes us
                self.heads.append(head)
                connection.sendall(self._answers[min(len(self.heads), len(self._answers)) - 1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        socket.create_connection(self._socket.getsockname()[:2]).close()
        self._thread.join()
        self._socket.close()


@contextmanager
def closed_port() -> Iterator[int]:
    """Give a port on which nobody listens and nobody can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """Give a port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


# -- asking once ----------------------------------------------------------------------------------


def test_a_yes_is_no_complaint() -> None:
    with AdminPort(OK) as admin:
        said = ask(f"127.0.0.1:{admin.port}", "/readyz")

    assert said is None
    assert admin.heads[0].startswith(b"GET /readyz HTTP/1.1\r\n")


def test_a_no_is_repeated() -> None:
    with AdminPort(NOT_READY) as admin:
        said = ask(f"127.0.0.1:{admin.port}", "/readyz")

    assert said == "not ready"


def test_a_no_without_words_is_still_a_no() -> None:
    with AdminPort(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") as admin:
        said = ask(f"127.0.0.1:{admin.port}", "/readyz")

    assert said == "HTTP 503"


def test_a_long_no_is_cut() -> None:
    body = b"x" * 100_000
    answer = b"HTTP/1.1 500 Oh\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with AdminPort(answer) as admin:
        said = ask(f"127.0.0.1:{admin.port}", "/readyz")

    assert said == "x" * 200


def test_what_another_program_says_is_shown_as_text() -> None:
    """Whatever listens there, a terminal must not obey it."""
    with AdminPort(b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n\x1b[2J\r\nno\x00") as admin:
        said = ask(f"127.0.0.1:{admin.port}", "/readyz")

    assert said is not None
    assert said.isprintable()


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b""],
    ids=["not HTTP", "nothing"],
)
def test_what_is_not_our_answer_is_a_no(answer: bytes) -> None:
    with AdminPort(answer) as admin:
        said = ask(f"127.0.0.1:{admin.port}", "/readyz")

    assert said is not None
    assert said.startswith(f"127.0.0.1:{admin.port} cannot be asked: ")


def test_a_refused_connection_is_named() -> None:
    with closed_port() as port:
        said = ask(f"127.0.0.1:{port}", "/readyz")

    assert said == f"127.0.0.1:{port} cannot be asked: Connection refused"


def test_a_name_that_does_not_exist_is_named() -> None:
    said = ask("no-such-host.invalid:9090", "/readyz")

    assert said is not None
    assert said.startswith("no-such-host.invalid:9090 cannot be asked: ")


def test_silence_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ASK_SECONDS", 0.05)
    with silent_port() as port:
        said = ask(f"127.0.0.1:{port}", "/readyz")

    assert said == f"127.0.0.1:{port} cannot be asked: timed out"


@pytest.mark.parametrize(
    ("listening", "bind"),
    [
        ("127.0.0.1", "0.0.0.0"),
        ("::1", "[::]"),
        ("127.0.0.1", "*"),
        ("::1", "[::1]"),
        ("127.0.0.1", "localhost"),
    ],
    ids=["IPv4 everywhere", "IPv6 everywhere", "everywhere", "IPv6", "name"],
)
def test_every_bind_can_be_asked(listening: str, bind: str) -> None:
    with AdminPort(OK, host=listening) as admin:
        said = ask(f"{bind}:{admin.port}", "/healthz")

    assert said is None


def test_an_ipv6_address_is_named_in_brackets() -> None:
    with closed_port() as port:
        said = ask(f"[::1]:{port}", "/healthz")

    assert said is not None
    assert said.startswith(f"[::1]:{port} cannot be asked: ")


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container often has `HTTP_PROXY`, sometimes pointing at ourselves."""
    with closed_port() as nobody, AdminPort(OK) as admin:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{nobody}")
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody}")

        said = ask(f"127.0.0.1:{admin.port}", "/readyz")

    assert said is None


# -- waiting --------------------------------------------------------------------------------------


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.at = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


def waiting(port: int, clock: Clock, *, timeout: float) -> Callable[[], str | None]:
    return partial(
        wait_until_ready,
        f"127.0.0.1:{port}",
        timeout=timeout,
        clock=clock,
        sleep=clock.sleep,
    )


def test_a_ready_proxy_is_not_waited_for() -> None:
    clock = Clock()
    with AdminPort(OK) as admin:
        said = waiting(admin.port, clock, timeout=5)()

    assert (said, clock.slept) == (None, [])


def test_a_proxy_that_gets_ready_is_waited_for() -> None:
    clock = Clock()
    with AdminPort(NOT_READY, NOT_READY, OK) as admin:
        said = waiting(admin.port, clock, timeout=5)()

    assert said is None
    assert len(clock.slept) == len(admin.heads) - 1 == 2


def test_the_last_word_is_told_when_time_is_up() -> None:
    clock = Clock()
    with AdminPort(NOT_READY) as admin:
        said = waiting(admin.port, clock, timeout=0.5)()

    assert said == "not ready"
    assert 0.5 <= clock.at <= 0.7


@pytest.mark.parametrize("answer", [OK, NOT_READY], ids=["ready", "not ready"])
def test_without_time_it_is_asked_once(answer: bytes) -> None:
    clock = Clock()
    with AdminPort(answer) as admin:
        waiting(admin.port, clock, timeout=0)()

    assert (len(admin.heads), clock.slept) == (1, [])


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "0.0.0.0", "*"])
def test_a_listener_is_reached_whatever_it_would_say(bind: str) -> None:
    """Whether it wants TLS, a key of a caller or a PROXY header first: nothing is sent."""
    with silent_port() as port:
        assert reach(f"{bind}:{port}") is None


def test_a_unix_socket_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "icr.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        assert reach(f"unix:{path}") is None


def test_a_listener_that_is_not_there_is_told(tmp_path: Path) -> None:
    with closed_port() as port:
        assert reach(f"127.0.0.1:{port}") == (
            f"127.0.0.1:{port} cannot be reached: Connection refused"
        )
    assert reach(f"unix:{tmp_path}/no") == (
        f"unix:{tmp_path}/no cannot be reached: No such file or directory"
    )


def test_a_listener_is_waited_for_by_the_command() -> None:
    with silent_port() as port:
        taken = CliRunner().invoke(commands, ["wait", "--listener", f"127.0.0.1:{port}"])
    with closed_port() as port:
        late = CliRunner().invoke(
            commands, ["wait", "--timeout", "0", "--listener", f"127.0.0.1:{port}"]
        )
    wrong = CliRunner().invoke(commands, ["wait", "--listener", "8080"])

    assert taken.exit_code == 0
    assert late.exit_code == 1
    assert "not ready after 0 s: " in late.output
    assert wrong.exit_code == 2
    assert "--listener '8080' is not an address" in wrong.output


def test_a_proxy_that_is_not_there_yet_is_waited_for() -> None:
    clock = Clock()
    with closed_port() as port:
        said = waiting(port, clock, timeout=0.3)()

    assert said is not None
    assert "Connection refused" in said
    assert clock.slept


def test_an_admin_port_on_a_unix_socket_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as port:
        port.bind(str(path))
        port.listen()
        asking = threading.Thread(target=lambda: said.append(ask(f"unix:{path}", "/healthz")))
        said: list[str | None] = []
        asking.start()
        connection, _ = port.accept()
        with connection:
            head = connection.recv(65536)
            connection.sendall(OK)
        asking.join()

    assert said == [None]
    assert head.startswith(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
    assert ask(f"unix:{path}", "/healthz") == f"unix:{path} cannot be asked: Connection refused"

"""Sockets of systemd's: taken by name or number, once, and only if they are meant for us."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from icr_proxy.errors import BindError
from icr_proxy.net.sockets import Activation

if TYPE_CHECKING:
    from collections.abc import Iterator

ME = 4242
FIRST = 200  # a test cannot have its own sockets from 3 on


@pytest.fixture
def passed() -> Iterator[list[tuple[str, int]]]:
    """Three sockets that listen, at the numbers from `FIRST` on."""
    with ExitStack() as stack:
        places = []
        for number in range(FIRST, FIRST + 3):
            found = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            os.dup2(found.fileno(), number)
            stack.callback(_close, number)
            places.append(found.getsockname())
        yield places


def _close(number: int) -> None:
    with suppress(OSError):  # whoever took it may have closed it
        os.close(number)


def environment(**more: str) -> dict[str, str]:
    given = {"LISTEN_PID": str(ME), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:admin:web"}
    return {"HOME": "/"} | given | more


def places(activation: Activation, name: str) -> list[tuple[str, int]]:
    found = activation.take(name)
    names = [each.getsockname() for each in found]
    for each in found:
        each.close()
    return names


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        pytest.param("admin", [1], id="by name"),
        pytest.param("web", [0, 2], id="a name of several"),
        pytest.param("1", [1], id="by number"),
    ],
)
def test_sockets_are_taken_by_name_or_number(
    passed: list[tuple[str, int]], name: str, taken: list[int]
) -> None:
    activation = Activation(environment(), process_id=ME, first=FIRST)

    assert places(activation, name) == [passed[at] for at in taken]


@pytest.mark.parametrize("names", ["", "web", "web:"])
def test_a_socket_without_a_name_is_called_as_systemd_calls_it(
    passed: list[tuple[str, int]], names: str
) -> None:
    environ = environment(LISTEN_FDNAMES=names)

    found = places(Activation(environ, process_id=ME, first=FIRST), "unknown")

    assert found == passed[1 if names else 0 :]


def test_a_name_that_is_a_number_comes_before_the_number(passed: list[tuple[str, int]]) -> None:
    environ = environment(LISTEN_FDNAMES="2:1:0")

    assert places(Activation(environ, process_id=ME, first=FIRST), "0") == [passed[2]]


def test_the_environment_forgets_them_on_first_use(passed: list[tuple[str, int]]) -> None:
    """So that a child of ours does not take them for its own."""
    environ = environment(LISTEN_PIDFDID="7")
    activation = Activation(environ, process_id=ME, first=FIRST)
    before = set(environ)

    places(activation, "admin")

    assert "LISTEN_FDS" in before
    assert environ == {"HOME": "/"}
    assert places(activation, "0") == [passed[0]]


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        pytest.param({}, "no socket was passed", id="none"),
        pytest.param({"LISTEN_PID": str(ME)}, "no socket was passed", id="no number"),
        pytest.param(environment(LISTEN_FDS="x"), "no socket was passed", id="nonsense"),
        pytest.param(
            environment(LISTEN_PID="1"), "were passed to process 1, and this is 4242", id="not us"
        ),
        pytest.param(
            environment(), "no socket has that name; passed were 3: web, admin", id="another name"
        ),
        pytest.param(environment(LISTEN_FDS="0"), "passed were 0: none", id="zero of them"),
    ],
)
def test_what_is_not_there_is_told(environ: dict[str, str], why: str) -> None:
    activation = Activation(dict(environ), process_id=ME, first=FIRST)

    with pytest.raises(BindError, match=f"systemd:other: .*{why}"):
        activation.take("other")


def test_a_number_beyond_the_last_is_told(passed: list[tuple[str, int]]) -> None:
    del passed
    activation = Activation(environment(), process_id=ME, first=FIRST)

    with pytest.raises(BindError, match="no socket has that name"):
        activation.take("3")


def test_a_file_is_no_socket() -> None:
    with open(os.devnull, "rb") as file:  # noqa: PTH123  # its number is what is wanted
        os.dup2(file.fileno(), FIRST)
    try:
        with pytest.raises(BindError, match="descriptor 200 is no socket"):
            Activation(environment(), process_id=ME, first=FIRST).take("0")
    finally:
        os.close(FIRST)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_takes_no_connections_is_told(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as found:
        os.dup2(found.fileno(), FIRST)
    try:
        with pytest.raises(BindError, match="it takes no connections"):
            Activation(environment(), process_id=ME, first=FIRST).take("0")
    finally:
        os.close(FIRST)  # still open: it was not ours to close

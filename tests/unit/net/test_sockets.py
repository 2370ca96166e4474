"""A Unix socket has its mode before anybody can connect, and takes no living one's place."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.errors import BindError
from icr_proxy.net.sockets import DEFAULT_MODE, Activation, UnixSocket, find_owner, open_unix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def opened(path: Path, *, mode: int = DEFAULT_MODE, owner: str | None = None) -> UnixSocket:
    return open_unix(path, mode=mode, owner=owner, backlog=1)


def leave_a_dead_one(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_file_has_its_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        found = opened(tmp_path / "s", mode=mode)
    finally:
        assert os.umask(before) == 0o077
    found.socket.close()

    assert mode_of(tmp_path / "s") == mode


def test_before_it_has_its_owner_it_has_its_mode_and_takes_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    followed: list[bool] = []
    refused: list[bool] = []
    path = tmp_path / "s"

    def look(_path: object, _user: int, _group: int, *, follow_symlinks: bool) -> None:
        followed.append(follow_symlinks)
        seen.append(mode_of(path))
        with socket.socket(socket.AF_UNIX) as early:
            refused.append(early.connect_ex(str(path)) != 0)

    monkeypatch.setattr(os, "chown", look)
    before = os.umask(0)
    try:
        found = opened(path, mode=0o660, owner=str(os.getuid()))
    finally:
        os.umask(before)
    found.socket.close()

    assert seen == [0o660]
    assert refused == [True]
    assert followed == [False]


def test_the_owner_is_changed_through_no_link(tmp_path: Path, monkeypatch: Any) -> None:
    """Somebody who can write to the directory may put a link in the place of the socket."""
    precious, path = tmp_path / "precious", tmp_path / "s"
    precious.touch(mode=0o600)
    chown = os.chown

    def swap(place: Any, user: int, group: int, **how: bool) -> None:
        path.unlink()
        path.symlink_to(precious)
        chown(place, user, 12345, **how)
        del group

    monkeypatch.setattr(os, "chown", swap)
    found = opened(path, mode=0o666, owner=str(os.getuid()))
    found.socket.close()

    assert precious.stat().st_gid != 12345
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    leave_a_dead_one(tmp_path / "s")

    found = opened(tmp_path / "s")

    with socket.socket(socket.AF_UNIX) as caller:
        assert caller.connect_ex(str(tmp_path / "s")) == 0
    found.socket.close()


def test_a_living_socket_is_left_alone(tmp_path: Path) -> None:
    living = opened(tmp_path / "s")

    with pytest.raises(BindError, match="another program is using it"):
        opened(tmp_path / "s")

    with socket.socket(socket.AF_UNIX) as caller:
        assert caller.connect_ex(str(tmp_path / "s")) == 0
    living.socket.close()


def test_a_datagram_socket_counts_as_living(tmp_path: Path) -> None:
    """It refuses in another way, and is not ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "s"))

        with pytest.raises(BindError, match="another program is using it"):
            opened(tmp_path / "s")


@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket"])
def test_what_is_no_socket_is_never_deleted(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        leave_a_dead_one(tmp_path / "other")
        path.symlink_to("other")

    with pytest.raises(BindError, match="a file that is no socket is there"):
        opened(path)
    assert path.is_symlink() or path.exists()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="No such file or directory"):
        opened(tmp_path / "missing" / "s")


def test_it_is_removed_in_the_end(tmp_path: Path) -> None:
    found = opened(tmp_path / "s")
    found.socket.close()
    found.remove()
    found.remove()

    assert not (tmp_path / "s").exists()


def test_another_programs_socket_is_not_removed(tmp_path: Path) -> None:
    found = opened(tmp_path / "s")
    found.socket.close()
    (tmp_path / "s").rename(tmp_path / "aside")  # so that its inode is not given to the next
    leave_a_dead_one(tmp_path / "s")
    found.remove()

    assert (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("owner", "numbers"),
    [
        (None, (-1, -1)),
        ("7", (7, -1)),
        (":8", (-1, 8)),
        ("7:8", (7, 8)),
        (
            f"{pwd.getpwuid(0).pw_name}:{grp.getgrgid(0).gr_name}",
            (0, 0),
        ),
    ],
)
def test_an_owner_is_a_name_or_a_number(
    tmp_path: Path, owner: str | None, numbers: tuple[int, int]
) -> None:
    assert find_owner(owner, path=tmp_path) == numbers


@pytest.mark.parametrize("owner", ["nobody-of-that-name", ":no-such-group"])
def test_an_owner_nobody_knows_is_told(tmp_path: Path, owner: str) -> None:
    with pytest.raises(BindError, match="is not known on this machine"):
        opened(tmp_path / "s", owner=owner)
    assert not (tmp_path / "s").exists()


def test_a_socket_that_took_the_place_of_a_dead_one_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    leave_a_dead_one(path)

    def look(_path: Path) -> bool:
        path.rename(tmp_path / "aside")
        leave_a_dead_one(path)
        return False

    monkeypatch.setattr("icr_proxy.net.sockets._is_live", look)
    with pytest.raises(BindError, match="Address already in use"):
        opened(path)
    assert path.exists()


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
    found = activation.claim(name)
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
        activation.claim("other")


def test_a_number_beyond_the_last_is_told(passed: list[tuple[str, int]]) -> None:
    del passed
    activation = Activation(environment(), process_id=ME, first=FIRST)

    with pytest.raises(BindError, match="no socket has that name"):
        activation.claim("3")


def test_a_file_is_no_socket() -> None:
    with open(os.devnull, "rb") as file:  # noqa: PTH123  # its number is what is wanted
        os.dup2(file.fileno(), FIRST)
    try:
        with pytest.raises(BindError, match="descriptor 200 is no socket"):
            Activation(environment(), process_id=ME, first=FIRST).claim("0")
    finally:
        os.close(FIRST)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_takes_no_connections_is_told(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as found:
        os.dup2(found.fileno(), FIRST)
    try:
        with pytest.raises(BindError, match="it takes no connections"):
            Activation(environment(), process_id=ME, first=FIRST).claim("0")
    finally:
        os.close(FIRST)  # still open: it was not ours to close

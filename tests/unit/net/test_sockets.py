"""A Unix socket has its mode before anybody can connect, and takes no living one's place."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.errors import BindError
from icr_proxy.net.sockets import DEFAULT_MODE, UnixSocket, find_owner, open_unix

if TYPE_CHECKING:
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

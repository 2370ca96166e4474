import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from icr_proxy.admin.auth import AdminAuthorizer, AdminToken, is_visit
from icr_proxy.errors import StartError
from icr_proxy.net.peers import Peer
from icr_proxy.redaction import Secret

HERE, THERE = "127.0.0.1", "10.0.0.7"
LOCAL, OPEN = "127.0.0.1:9090", "0.0.0.0:9090"
TOKEN = b"planted-token"
GIVEN = (b"X-ICR-Proxy-Admin-Token", TOKEN)
CURL = ((b"Host", b"127.0.0.1:9090"),)
PAGE = (*CURL, (b"X-ICR-Proxy-Console", b"1"), (b"Sec-Fetch-Site", b"same-origin"))
Headers = Sequence[tuple[bytes, bytes]]


def gate(bind: str, *, token: bytes | None = None) -> AdminAuthorizer:
    secret = Secret(token.decode()) if token is not None else None
    return AdminAuthorizer(bind, token=lambda: secret)


@pytest.mark.parametrize(
    ("bind", "token", "headers", "peer"),
    [
        pytest.param(LOCAL, None, CURL, HERE, id="curl on this machine"),
        pytest.param(LOCAL, TOKEN, (*CURL, GIVEN), HERE, id="loopback, with its token"),
        pytest.param(LOCAL, TOKEN, (*PAGE, GIVEN), HERE, id="the console, with its token"),
        pytest.param(LOCAL, None, PAGE, HERE, id="the console"),
        pytest.param(
            LOCAL, None, (*PAGE, (b"Origin", b"http://127.0.0.1:9090")), HERE, id="its buttons"
        ),
        pytest.param(OPEN, None, CURL, HERE, id="an open port, from this machine"),
        pytest.param(
            OPEN, TOKEN, (*CURL, GIVEN), HERE, id="an open port with its token, from here"
        ),
        pytest.param(OPEN, TOKEN, (*CURL, GIVEN), THERE, id="… and from elsewhere"),
        pytest.param("unix:/run/a.sock", None, CURL, "unix:uid=0", id="a Unix socket"),
        pytest.param(
            "unix:/run/a.sock", TOKEN, (*CURL, GIVEN), "unix:uid=0", id="… with its token"
        ),
        pytest.param(
            OPEN,
            TOKEN,
            ((b"Host", b"proxy.internal:9090"), *PAGE[1:], GIVEN),
            THERE,
            id="the console under any name, with the token",
        ),
    ],
)
def test_who_may_come_closer(bind: str, token: bytes | None, headers: Headers, peer: str) -> None:
    assert gate(bind, token=token).denial_reason(headers, peer=Peer(address=peer)) is None


@pytest.mark.parametrize(
    ("bind", "token", "headers", "peer", "sentence"),
    [
        pytest.param(OPEN, None, CURL, THERE, "own machine", id="another machine"),
        pytest.param(OPEN, None, (*CURL, GIVEN), THERE, "is not right", id="a token of nobody"),
        pytest.param(OPEN, TOKEN, CURL, HERE, "token is needed", id="a mesh makes all look local"),
        pytest.param(OPEN, TOKEN, CURL, THERE, "token is needed", id="no token"),
        pytest.param(LOCAL, TOKEN, CURL, HERE, "token is needed", id="no token on loopback"),
        pytest.param(LOCAL, TOKEN, PAGE, HERE, "token is needed", id="the console without it"),
        pytest.param("[::1]:9090", TOKEN, CURL, "::1", "token is needed", id="IPv6"),
        pytest.param(
            "unix:/a.sock", TOKEN, CURL, "unix:uid=0", "token is needed", id="a Unix socket"
        ),
        pytest.param("systemd:0", TOKEN, CURL, HERE, "token is needed", id="a socket of systemd's"),
        pytest.param(OPEN, TOKEN, (*CURL, GIVEN, GIVEN), HERE, "is not right", id="two tokens"),
        pytest.param(
            OPEN, TOKEN, (*CURL, (GIVEN[0], b"planted-tokem")), HERE, "is not right", id="wrong"
        ),
        pytest.param(OPEN, TOKEN, (*CURL, (GIVEN[0], b"")), HERE, "is not right", id="empty"),
        pytest.param(OPEN, TOKEN, (*CURL, (GIVEN[0], b"\xff")), HERE, "is not right", id="bytes"),
        pytest.param(
            LOCAL,
            None,
            (*CURL, (b"Origin", b"http://127.0.0.1:9090")),
            HERE,
            "from the console only",
            id="a form of our own origin, without the console's header",
        ),
        pytest.param(
            LOCAL,
            None,
            (*CURL, (b"Sec-Fetch-Site", b"same-origin")),
            HERE,
            "from the console only",
            id="a browser without the console's header",
        ),
        pytest.param(
            LOCAL,
            None,
            (*PAGE, (b"Origin", b"https://attacker.example")),
            HERE,
            "from the console only",
            id="another origin, if it could send the header",
        ),
        pytest.param(
            OPEN,
            None,
            ((b"Host", b"attacker.example:9090"), *PAGE[1:]),
            HERE,
            "from the console only",
            id="a name that was rebound to an open port of this machine",
        ),
    ],
)
def test_who_may_not(
    bind: str, token: bytes | None, headers: Headers, peer: str, sentence: str
) -> None:
    assert sentence in (
        gate(bind, token=token).denial_reason(headers, peer=Peer(address=peer)) or ""
    )


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "unix:uid=0,pid=7"])
def test_this_machine_may(peer: str) -> None:
    assert gate(OPEN).denial_reason(CURL, peer=Peer(address=peer)) is None


@pytest.mark.parametrize("peer", ["", "fe80::1%eth0", "::ffff:10.0.0.7", "192.0.2.1"])
def test_another_machine_stays_outside_whatever_its_address_looks_like(peer: str) -> None:
    assert gate(OPEN).denial_reason(CURL, peer=Peer(address=peer)) is not None


def test_no_token_is_no_password() -> None:
    """Before the start has made one, and without a file for it, nothing opens the gate."""
    assert not gate(OPEN).knows(((GIVEN[0], b""),))


@pytest.mark.parametrize(
    ("headers", "is_one"),
    [
        ([(b"Sec-Fetch-Mode", b"navigate"), (b"Sec-Fetch-Dest", b"document")], True),
        ([(b"Sec-Fetch-Mode", b"navigate"), (b"Sec-Fetch-Dest", b"iframe")], False),
        ([(b"Sec-Fetch-Mode", b"no-cors"), (b"Sec-Fetch-Dest", b"script")], False),
        ([], False),
    ],
    ids=["a link", "a frame", "a script of another page", "not a browser"],
)
def test_following_a_link_is_a_visit(headers: Headers, is_one: bool) -> None:  # noqa: FBT001
    assert is_visit(headers) is is_one


def test_without_a_file_there_is_no_token() -> None:
    token = AdminToken(None)
    token.issue()

    assert token() is None
    token.withdraw()


def test_the_token_is_in_its_file_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    before = os.umask(0)
    try:
        token = AdminToken(file)
        token.issue()
    finally:
        os.umask(before)

    secret = token()
    assert secret is not None
    assert file.read_text() == secret.reveal() + "\n"
    assert len(secret.reveal()) >= 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_each_start_makes_another_one(tmp_path: Path) -> None:
    file = tmp_path / "token"
    texts = set()
    for _ in range(2):
        AdminToken(file).issue()
        texts.add(file.read_text())

    assert len(texts) == 2


def test_a_file_that_others_could_read_is_replaced_and_not_filled(tmp_path: Path) -> None:
    """Whoever has it open would read along."""
    file = tmp_path / "token"
    file.write_text("old")
    file.chmod(0o644)

    with file.open() as spy:
        AdminToken(file).issue()

        assert spy.read() == "old"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_place_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    token = AdminToken(tmp_path / "nowhere" / "token")

    with pytest.raises(StartError, match=r"admin\.token_file"):
        token.issue()


def test_a_directory_in_its_place_stops_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()

    with pytest.raises(StartError, match=r"admin\.token_file") as caught:
        AdminToken(tmp_path / "token").issue()

    assert [each.name for each in tmp_path.iterdir()] == ["token"]
    assert "token.reveal" not in str(caught.value)


def test_at_the_end_the_file_is_taken_away(tmp_path: Path) -> None:
    token = AdminToken(tmp_path / "token")
    token.issue()

    token.withdraw()

    assert list(tmp_path.iterdir()) == []
    assert token() is not None, "until the port is closed, it must not be open to everybody"


def test_the_file_of_another_proxy_stays(tmp_path: Path) -> None:
    one, other = AdminToken(tmp_path / "token"), AdminToken(tmp_path / "token")
    one.issue()
    other.issue()

    one.withdraw()

    secret = other()
    assert secret is not None
    assert (tmp_path / "token").read_text() == secret.reveal() + "\n"


def test_a_file_that_has_gone_is_no_error(tmp_path: Path) -> None:
    token = AdminToken(tmp_path / "token")
    token.issue()
    (tmp_path / "token").unlink()

    token.withdraw()


def test_the_token_is_written_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "token").symlink_to("precious")

    AdminToken(tmp_path / "token").issue()

    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "token").is_symlink()


def test_a_pipe_in_its_place_does_not_keep_the_proxy_from_ending(tmp_path: Path) -> None:
    token = AdminToken(tmp_path / "token")
    token.issue()
    (tmp_path / "token").unlink()
    os.mkfifo(tmp_path / "token")

    token.withdraw()

    assert (tmp_path / "token").is_fifo()


def try_to_issue(token: AdminToken) -> None:
    token.issue(is_trial=True)


@pytest.mark.parametrize("issue", [AdminToken.issue, try_to_issue])
def test_no_file_takes_the_place_of_a_pipe_or_a_device(
    tmp_path: Path, issue: Callable[[AdminToken], None]
) -> None:
    """As root, `token_file: /dev/null` would otherwise replace it for the whole machine."""
    os.mkfifo(tmp_path / "token")

    with pytest.raises(StartError, match="cannot be written: Not a regular file"):
        issue(AdminToken(tmp_path / "token"))

    assert [each.is_fifo() for each in tmp_path.iterdir()] == [True]

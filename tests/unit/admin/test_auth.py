from collections.abc import Sequence

import pytest

from icr_proxy.admin.auth import Gate, is_visit
from icr_proxy.net.peers import Peer
from icr_proxy.redaction import Secret

HERE, THERE = "127.0.0.1", "10.0.0.7"
LOCAL, OPEN = "127.0.0.1:9090", "0.0.0.0:9090"
TOKEN = b"planted-token"
GIVEN = (b"X-ICR-Proxy-Admin-Token", TOKEN)
CURL = ((b"Host", b"127.0.0.1:9090"),)
PAGE = (*CURL, (b"X-ICR-Proxy-Console", b"1"), (b"Sec-Fetch-Site", b"same-origin"))
Headers = Sequence[tuple[bytes, bytes]]


def gate(bind: str, *, token: bytes | None = None) -> Gate:
    secret = Secret(token.decode()) if token is not None else None
    return Gate(bind, token=lambda: secret)


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
    assert gate(bind, token=token).objection(headers, peer=Peer(address=peer)) is None


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
    assert sentence in (gate(bind, token=token).objection(headers, peer=Peer(address=peer)) or "")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "unix:uid=0,pid=7"])
def test_this_machine_may(peer: str) -> None:
    assert gate(OPEN).objection(CURL, peer=Peer(address=peer)) is None


@pytest.mark.parametrize("peer", ["", "fe80::1%eth0", "::ffff:10.0.0.7", "192.0.2.1"])
def test_another_machine_stays_outside_whatever_its_address_looks_like(peer: str) -> None:
    assert gate(OPEN).objection(CURL, peer=Peer(address=peer)) is not None


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

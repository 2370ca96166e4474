import json
from typing import Any

import pytest

from icr_proxy.admin.api import AdminActions
from icr_proxy.identifiers import TokenKey
from icr_proxy.net.peers import Peer
from icr_proxy.server.response import Page

ONE = TokenKey("in-1")
HERE = "127.0.0.1"


class Switches:
    """What the switches act on: it remembers, and answers as told."""

    def __init__(self) -> None:
        self.thrown: list[tuple[str, TokenKey]] = []
        self.answer = True

    def invalidate(self, key: TokenKey) -> bool:
        self.thrown.append(("drop", key))
        return self.answer

    def block(self, key: TokenKey) -> bool:
        self.thrown.append(("block", key))
        return self.answer

    def unblock(self, key: TokenKey) -> bool:
        self.thrown.append(("unblock", key))
        return self.answer


class Heard:
    """A `Log` that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    debug = info = error = warning


class Stage:
    """The switches with all that surrounds them."""

    def __init__(self) -> None:
        self.switches = Switches()
        self.heard = Heard()
        self.thrown: list[tuple[str, str | None, str]] = []
        self.control = AdminActions(
            tokens=self.switches,
            stop=self.stop,
            log=self.heard,
            on_action=lambda *facts: self.thrown.append(facts),
        )
        self.stops = 0

    def stop(self) -> bool:
        self.stops += 1
        return self.stops == 1

    def post(self, path: str, *, peer: str = HERE) -> Page:
        page = self.control.answer("POST", path, peer=Peer(address=peer))
        assert page is not None
        return page


@pytest.fixture
def stage() -> Stage:
    return Stage()


def said(page: Page) -> dict[str, Any]:
    assert page.content_type == b"application/json"
    members: dict[str, Any] = json.loads(page.body)
    return members


@pytest.mark.parametrize("answer", [True, False])
def test_a_token_is_dropped(stage: Stage, answer: bool) -> None:  # noqa: FBT001
    stage.switches.answer = answer

    page = stage.post("/tokens/in-1/drop")

    assert stage.switches.thrown == [("drop", ONE)]
    assert (page.status, said(page)) == (200, {"installation": "in-1", "dropped": answer})
    assert stage.heard.lines == [
        ("admin.token_dropped", {"installation": "in-1", "dropped": answer, "peer": HERE})
    ]


@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("switch", ["block", "unblock"])
def test_an_installation_is_switched(stage: Stage, switch: str, changed: bool) -> None:  # noqa: FBT001
    stage.switches.answer = changed

    page = stage.post(f"/installations/in-1/{switch}")

    assert stage.switches.thrown == [(switch, ONE)]
    assert page.status == 200
    assert said(page) == {
        "installation": "in-1",
        "blocked": switch == "block",
        "changed": changed,
    }
    assert stage.heard.lines == [
        (
            f"admin.installation_{switch}ed",
            {"installation": "in-1", "changed": changed, "peer": HERE},
        )
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/status",
        "/tokens",
        "/tokens/in-1",
        "/tokens/in-1/block",
        "/tokens/in-1/drop/",
        "/tokens/a/b/drop",
        "//tokens/in-1/drop",
        "/TOKENS/in-1/drop",
        "/tokens/in-1/dropped",
        "/installations/in-1/drop",
        "/installations/in-1",
        "/installations/in-1/unblock\n",
        "/x/installations/in-1/block",
    ],
)
def test_what_is_no_switch_is_somebody_elses(stage: Stage, path: str) -> None:
    assert stage.control.answer("POST", path, peer=Peer(address=HERE)) is None


@pytest.mark.parametrize(
    "identity",
    ["", "..", "a.b", "a%2Fb", "%69n-1", "in 1", "x" * 65, "undefined", "NULL", "é", "\udcff"],
)
@pytest.mark.parametrize("path", ["/tokens/{}/drop", "/installations/{}/block"])
def test_an_id_outside_the_alphabet_is_refused(stage: Stage, path: str, identity: str) -> None:
    page = stage.post(path.format(identity))

    assert page.status == 400
    assert said(page) == {"message": "An installation's ID is 1 to 64 letters, digits, - or _."}
    assert stage.switches.thrown == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"])
@pytest.mark.parametrize("path", ["/tokens/in-1/drop", "/installations/in-1/unblock"])
def test_a_switch_is_posted_to(stage: Stage, method: str, path: str) -> None:
    page = stage.control.answer(method, path, peer=Peer(address=HERE))

    assert page is not None
    assert (page.status, page.allow) == (405, b"POST")
    assert stage.switches.thrown == []


def test_with_an_objection_nothing_is_done(stage: Stage) -> None:
    page = stage.control.answer(
        "POST", "/installations/in-1/block", peer=Peer(address="10.0.0.7"), objection="Not you."
    )

    assert page is not None
    assert (page.status, said(page)) == (403, {"message": "Not you."})
    assert stage.switches.thrown == []
    assert stage.heard.lines == []


# -- quit -----------------------------------------------------------------------------------------


def test_quitting_is_begun_once_and_may_be_asked_for_again(stage: Stage) -> None:
    pages = [stage.post("/quit") for _ in range(2)]

    assert [page.status for page in pages] == [200, 200]
    assert [said(page)["changed"] for page in pages] == [True, False]
    assert stage.heard.lines[0] == ("admin.quit", {"changed": True, "peer": HERE})


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"])
def test_looking_at_quit_ends_nothing(stage: Stage, method: str) -> None:
    page = stage.control.answer(method, "/quit", peer=Peer(address=HERE))

    assert page is not None
    assert (page.status, page.allow) == (405, b"POST")
    assert stage.stops == 0


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "unix:uid=0,pid=1"])
def test_this_machine_may_quit(stage: Stage, peer: str) -> None:
    assert stage.post("/quit", peer=peer).status == 200


@pytest.mark.parametrize("peer", ["10.0.0.7", "::ffff:10.0.0.7", "fe80::1", ""])
def test_another_machine_may_not_quit_whatever_it_knows(stage: Stage, peer: str) -> None:
    """Without an objection of the gate: it has the admin token."""
    page = stage.post("/quit", peer=peer)

    assert page.status == 403
    assert stage.stops == 0
    assert stage.heard.lines == []


def test_who_is_objected_to_may_not_quit(stage: Stage) -> None:
    page = stage.control.answer("POST", "/quit", peer=Peer(address=HERE), objection="No.")

    assert page is not None
    assert (page.status, said(page)) == (403, {"message": "No."})
    assert stage.stops == 0


@pytest.mark.parametrize("path", ["/quit/", "/Quit", "//quit", "/quit\n", "/quitting"])
def test_what_is_not_quit_is_somebody_elses(stage: Stage, path: str) -> None:
    assert stage.control.answer("POST", path, peer=Peer(address=HERE)) is None


def test_every_switch_that_is_thrown_is_told_with_who_did_it(stage: Stage) -> None:
    for path in ("/tokens/i-1/drop", "/installations/i-1/block", "/installations/i-1/unblock"):
        stage.post(path)
    stage.post("/quit")

    assert stage.thrown == [
        ("drop", "i-1", HERE),
        ("block", "i-1", HERE),
        ("unblock", "i-1", HERE),
        ("quit", None, HERE),
    ]

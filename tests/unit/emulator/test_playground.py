"""Bodies, headers and answers that a proxy must carry unchanged."""

import gzip
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO

import msgspec
import pytest

from icr_proxy.emulator.api.calls import Route
from icr_proxy.emulator.api.route_table import ROUTES
from icr_proxy.emulator.playground import PATTERN, pattern
from tests.support.emulator_client import Client, raw

PLAYGROUND = [route for route in ROUTES if route.template.startswith("/_emulator") and route.faults]


@pytest.mark.parametrize("route", PLAYGROUND, ids=lambda route: f"{route.method} {route.template}")
def test_playground_needs_a_token(route: Route) -> None:
    assert route.credential == "any"


@pytest.mark.parametrize(
    "target",
    [
        "/_emulator/echo/a%2Fb/%c3%a4?x=%20&y&x=2",
        "/_emulator/echo//double///slash",
        "/_emulator/echo/~tilde'quote(paren)?",
    ],
)
async def test_echo_tells_what_was_received(client: Client, target: str) -> None:
    token = await client.mint()
    wire = f"PURGE {target} HTTP/1.1\r\nhost: h\r\nX-a: 1\r\nx-A: 2\r\nContent-Length: 3\r\n"

    body = await raw(client, f"{wire}Authorization: Bearer {token}\r\n\r\nabc".encode())

    told = msgspec.json.decode(body)
    assert (told["method"], told["target"]) == ("PURGE", target)
    assert told["headers"][:3] == [["host", "h"], ["X-a", "1"], ["x-A", "2"]]
    assert told["bodySha256"] == sha256(b"abc").hexdigest()
    assert told["installationId"] == client.installation().id


@pytest.mark.parametrize("length", [0, 1, len(PATTERN), 3_000_001])
@pytest.mark.parametrize("query", ["", "?chunked=1"])
async def test_bytes_have_the_length_asked_for(client: Client, length: int, query: str) -> None:
    reply = await client.ask("GET", f"/_emulator/bytes/{length}{query}", bearer=await client.mint())

    assert reply.body == b"".join(pattern(length))
    assert ("Content-Length" in reply.headers) is not bool(query)
    assert client.emulator.world.requests[-1].status == 200


async def test_head_of_bytes_has_no_body(client: Client) -> None:
    reply = await client.ask("HEAD", "/_emulator/bytes/1000", bearer=await client.mint())

    assert (reply.headers["Content-Length"], reply.body) == ("1000", b"")


async def test_client_that_leaves_in_the_middle_does_no_harm(client: Client) -> None:
    token = await client.mint()
    target = "/_emulator/bytes/100000000"
    headers = {"Authorization": f"Bearer {token}"}
    async with client.session.get(target, headers=headers) as response:
        await response.content.readexactly(10)

    reply = await client.ask("GET", "/projects", bearer=token)

    assert reply.status == 200


async def test_sink_hashes_what_was_on_the_wire(client: Client) -> None:
    sent = gzip.compress(b"x" * 100, mtime=0)

    reply = await client.ask(
        "POST",
        "/_emulator/sink",
        bearer=await client.mint(),
        data=BytesIO(sent),
        headers=[("Content-Encoding", "gzip")],
    )

    assert reply.json == {"length": len(sent), "sha256": sha256(sent).hexdigest()}


async def test_sink_takes_chunked_bodies_beyond_what_is_kept(client: Client) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in pattern(5_000_000):
            yield piece

    reply = await client.ask("POST", "/_emulator/sink", bearer=await client.mint(), data=pieces())

    assert reply.json["length"] == 5_000_000


async def test_body_is_invited_when_the_client_asks(client: Client) -> None:
    reply = await client.ask(
        "POST", "/_emulator/sink", bearer=await client.mint(), data=b"abc", expect100=True
    )

    assert reply.json["length"] == 3


async def test_broken_off_body_is_not_acted_on(client: Client) -> None:
    head = "POST /v1/retire HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n"

    answer = await raw(client, head.encode() + b"{", leave=True)

    seen = client.emulator.world.requests[-1]
    assert answer == b""
    assert (seen.body_length, seen.body_complete, seen.status) == (1, False, 0)


async def test_broken_framing_is_not_acted_on(client: Client) -> None:
    head = "POST /v1/retire HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

    await raw(client, head.encode() + b"1\r\na\r\n", later=b"Z\r\n", leave=True)

    seen = client.emulator.world.requests[-1]
    assert (seen.body_length, seen.body_complete, seen.status) == (1, False, 0)


async def test_compressed_answer_stays_compressed(client: Client) -> None:
    token = await client.mint()
    async with client.session.get(
        "/_emulator/gzip",
        headers={"Authorization": f"Bearer {token}"},
        auto_decompress=False,
    ) as response:
        body = await response.read()

    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["ETag"] == '"emulator-gzip-1"'
    assert gzip.decompress(body).startswith(b'{"compressed":true')


async def test_redirect_leads_to_another_host(client: Client) -> None:
    reply = await client.ask("GET", "/_emulator/redirect", bearer=await client.mint())

    assert (reply.status, reply.headers["Location"]) == (
        302,
        "https://files.example.com/report.pdf",
    )


async def test_redirect_leads_to_a_path_of_choice(client: Client) -> None:
    token = await client.mint()

    reply = await client.ask("GET", "/_emulator/redirect?to=/projects", bearer=token)
    wrong = await client.ask("GET", "/_emulator/redirect?to=x", bearer=token)

    assert reply.status == 302
    assert reply.headers["Location"].startswith("http://127.0.0.1:")
    assert reply.headers["Location"].endswith("/projects")
    assert wrong.status == 400


async def test_cookies_come_in_two_lines(client: Client) -> None:
    reply = await client.ask("GET", "/_emulator/cookies", bearer=await client.mint())

    assert len(reply.headers.getall("Set-Cookie")) == 2


async def test_slow_answers_late(client: Client) -> None:
    reply = await client.ask("GET", "/_emulator/slow?seconds=0.01", bearer=await client.mint())

    assert reply.json == {"seconds": 0.01}


@pytest.mark.parametrize(
    "target",
    ["slow?seconds=x", "slow?seconds=-1", "slow?seconds=nan", "bytes/x", "bytes/-1", "status/999"],
)
async def test_nonsense_is_refused(client: Client, target: str) -> None:
    reply = await client.ask("GET", f"/_emulator/{target}", bearer=await client.mint())

    assert reply.status == 400


@pytest.mark.parametrize("code", [200, 204, 404, 429, 503])
async def test_status_is_as_asked(client: Client, code: int) -> None:
    reply = await client.ask("GET", f"/_emulator/status/{code}", bearer=await client.mint())

    assert reply.status == code

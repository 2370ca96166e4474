import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest
from prometheus_client.parser import text_string_to_metric_families

from icr_proxy.admin.api import AdminActions, AdminApi
from icr_proxy.admin.auth import AdminAuthorizer
from icr_proxy.config.inbound_models import LimitsConfig, ListenerConfig
from icr_proxy.identifiers import TokenKey
from icr_proxy.policy.browser_guard import HostGuard, OriginGuard
from icr_proxy.server.listener import Listener
from tests.support.app_fixture import RawAnswer, RunningProxy, call, request_head


class Quiet(logging.Handler):
    """Keeps what the server complains about."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Switches:
    """What the switches act on; `test_control.py` has what they do."""

    def __init__(self) -> None:
        self.thrown: list[TokenKey] = []

    def throw(self, key: TokenKey) -> bool:
        self.thrown.append(key)
        return True

    invalidate = block = unblock = throw


class Unheard:
    """A `Log` nobody reads."""

    def warning(self, event: str, **fields: object) -> None:
        pass

    debug = info = error = warning


class Port:
    """An admin port whose answers a test decides."""

    def __init__(self) -> None:
        self.started = True
        self.ready = True
        self.status: Callable[[], Mapping[str, object]] = lambda: {"state": "ready"}
        self.metrics: Callable[[], bytes] = lambda: b"# nothing\n"
        self.complaints = Quiet()
        self.switches = Switches()
        self.crashes: list[tuple[BaseException, str]] = []
        self.number = 0
        self.hang_up: Callable[[], None] = lambda: None

    async def ask(self, method: str, target: str) -> RawAnswer:
        return await self.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    async def send(self, request: bytes) -> RawAnswer:
        return await call(self.number, request)


@asynccontextmanager
async def listening(port: Port, bind: str = "127.0.0.1:0") -> AsyncIterator[None]:
    admin = AdminApi(
        started=lambda: port.started,
        ready=lambda: port.ready,
        metrics=lambda accept: (port.metrics(), b"text/plain; for=" + accept.encode()),
        status=lambda: port.status(),  # noqa: PLW0108 - tests replace it
        control=AdminActions(tokens=port.switches, stop=lambda: True, log=Unheard()),
        gate=AdminAuthorizer(bind, token=lambda: None),
        hosts=HostGuard(ListenerConfig(bind=bind, exposed=True), base_url=f"http://{bind}"),
        origins=OriginGuard(()),
        crashed=lambda error, path: port.crashes.append((error, path)),
    )
    logger = logging.Logger("test")  # noqa: LOG001 - not in the global tree
    logger.addHandler(port.complaints)
    listener = Listener(
        bind,
        respond=admin,
        refuse=admin.respond_error,
        limits=LimitsConfig(),
        tag="X-ICR-Installation-Id",
        logger=logger,
    )
    await listener.open()
    port.number = int(listener.address.rpartition(":")[2])

    def hang_up() -> None:
        for connection in listener._context.connections:
            assert connection.transport is not None
            connection.transport.abort()

    port.hang_up = hang_up
    try:
        yield
    finally:
        await listener.close()


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    port = Port()
    async with listening(port):
        yield port


SWITCHES = b"POST /tokens/ID/drop /installations/ID/block /installations/ID/unblock /quit\n"
PATHS = ["/", "/healthz", "/startupz", "/readyz", "/metrics", "/status"]


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        (
            "/",
            b"text/plain; charset=utf-8",
            b"/healthz /startupz /readyz /metrics /status\n" + SWITCHES,
        ),
        ("/healthz", b"text/plain; charset=utf-8", b"ok\n"),
        ("/startupz", b"text/plain; charset=utf-8", b"ok\n"),
        ("/readyz", b"text/plain; charset=utf-8", b"ok\n"),
        ("/metrics", b"text/plain; for=", b"# nothing\n"),
        ("/status", b"application/json", b'{"state":"ready"}'),
    ],
)
async def test_a_page_is_answered(port: Port, path: str, content_type: bytes, body: bytes) -> None:
    answer = await port.ask("GET", path)

    assert (answer.status, answer.reason, answer.body) == (200, b"OK", body)
    assert answer.values(b"Content-Type") == [content_type]
    assert answer.values(b"Content-Length") == [b"%d" % len(body)]


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
async def test_nothing_is_cached_or_guessed(port: Port, path: str) -> None:
    answer = await port.ask("GET", path)

    assert answer.values(b"Cache-Control") == [b"no-store"]
    assert answer.values(b"X-Content-Type-Options") == [b"nosniff"]


@pytest.mark.parametrize("path", PATHS)
async def test_head_is_get_without_the_body(port: Port, path: str) -> None:
    get = await port.ask("GET", path)
    head = await port.ask("HEAD", path)

    assert head.headers == get.headers
    assert head.body == b""


@pytest.mark.parametrize("path", PATHS)
async def test_a_query_is_ignored(port: Port, path: str) -> None:
    plain = await port.ask("GET", path)
    answer = await port.ask("GET", path + "?verbose=1&x=/../")

    assert answer == plain


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/healthz/",
        "/HEALTHZ",
        "//healthz",
        "/./healthz",
        "/health%7a",
        "/metrics/x",
    ],
)
async def test_what_is_not_there_is_not_found(port: Port, path: str) -> None:
    answer = await port.ask("GET", path)

    assert (answer.status, answer.reason) == (404, b"Not Found")
    assert answer.body.startswith(b"there is: /healthz")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_a_page_is_only_looked_at(port: Port, method: str, path: str) -> None:
    answer = await port.ask(method, path)

    assert (answer.status, answer.reason) == (405, b"Method Not Allowed")
    assert answer.values(b"Allow") == [b"GET, HEAD"]


async def test_a_body_is_not_waited_for(port: Port) -> None:
    answer = await port.send(
        b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    )

    assert answer.status == 405


# -- switches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/tokens/in-1/drop", "/installations/in-1/block", "/installations/in-1/unblock?x=1"]
)
async def test_a_switch_is_thrown_by_post(port: Port, path: str) -> None:
    answer = await port.ask("POST", path)

    assert answer.status == 200
    assert answer.values(b"Content-Type") == [b"application/json"]
    assert json.loads(answer.body)["installation"] == "in-1"
    assert port.switches.thrown == [TokenKey("in-1")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_looking_at_a_switch_throws_nothing(port: Port, method: str) -> None:
    answer = await port.ask(method, "/tokens/in-1/drop")

    assert (answer.status, answer.values(b"Allow")) == (405, [b"POST"])
    assert port.switches.thrown == []


async def test_an_id_that_is_none_is_refused(port: Port) -> None:
    answer = await port.ask("POST", "/tokens/a%2Fb/drop")

    assert answer.status == 400
    assert port.switches.thrown == []


# -- who may ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:9090", "127.0.0.1", "[::1]:9090", "10.1.2.3:9090"])
async def test_names_of_this_machine_and_addresses_are_answered(port: Port, host: str) -> None:
    answer = await port.send(f"GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    assert answer.status == 200


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/tokens/in-1/drop"])
@pytest.mark.parametrize("host", ["attacker.example", "localhost.attacker.example", ""])
async def test_a_name_that_was_rebound_is_not_answered(port: Port, path: str, host: str) -> None:
    """With DNS rebinding, a page of the web reads what it was not meant to."""
    answer = await port.send(f"POST {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    assert answer.status == 421
    assert port.switches.thrown == []


@pytest.mark.parametrize("hosts", ["", "Host: localhost\r\nHost: localhost\r\n"])
async def test_exactly_one_host_is_needed(port: Port, hosts: str) -> None:
    answer = await port.send(f"GET /status HTTP/1.1\r\n{hosts}\r\n".encode())

    assert answer.status == 400


@pytest.mark.parametrize(
    "header",
    [
        "Origin: https://attacker.example",
        "Origin: null",
        "Origin: http://localhost:9090",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ],
)
@pytest.mark.parametrize("path", ["/status", "/tokens/in-1/drop"])
async def test_a_page_of_the_web_is_refused(port: Port, path: str, header: str) -> None:
    """A form needs no permission to POST."""
    answer = await port.send(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode()
    )

    assert answer.status == 403
    assert port.switches.thrown == []


async def test_a_person_with_a_browser_may_look(port: Port) -> None:
    answer = await port.send(
        b"GET /status HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none\r\n\r\n"
    )

    assert answer.status == 200


async def test_beyond_loopback_any_name_is_answered() -> None:
    """A scraper comes by whatever name the network has for it."""
    port = Port()
    async with listening(port, "0.0.0.0:0"):
        answer = await port.send(b"GET /metrics HTTP/1.1\r\nHost: proxy.internal\r\n\r\n")

    assert answer.status == 200


# -- mistakes of ours -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/status", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_crash_is_answered_and_told_without_its_text(
    port: Port, method: str, path: str
) -> None:
    error = RuntimeError("crs_planted")

    def crash() -> NoReturn:
        raise error

    port.status = port.metrics = crash

    answer = await port.ask(method, path)

    assert answer.status == 500
    assert b"planted" not in answer.body
    assert port.crashes == [(error, path)]


async def test_after_a_crash_the_next_request_is_served(port: Port) -> None:
    port.status = lambda: {"x": object()}
    await port.ask("GET", "/status")

    assert (await port.ask("GET", "/healthz")).status == 200
    assert len(port.crashes) == 1


# -- probes ---------------------------------------------------------------------------------------


async def test_it_is_alive_whatever_its_state(port: Port) -> None:
    port.started = port.ready = False

    answer = await port.ask("GET", "/healthz")

    assert answer.status == 200


@pytest.mark.parametrize(
    ("path", "body"), [("/startupz", b"starting\n"), ("/readyz", b"not ready\n")]
)
async def test_a_probe_that_fails_says_why(port: Port, path: str, body: bytes) -> None:
    port.started = port.ready = False

    answer = await port.ask("GET", path)

    assert (answer.status, answer.body) == (503, body)


async def test_a_draining_proxy_has_started_and_is_not_ready(port: Port) -> None:
    port.ready = False

    found = [(await port.ask("GET", path)).status for path in ("/startupz", "/readyz")]

    assert found == [200, 503]


# -- conversations --------------------------------------------------------------------------------


async def test_one_connection_serves_probe_after_probe(port: Port) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    for _ in range(3):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(3) == b"ok\n"
    writer.close()


async def test_http_1_0_is_answered(port: Port) -> None:
    answer = await port.send(b"GET /healthz HTTP/1.0\r\n\r\n")

    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer.values(b"Connection") == [b"close"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"nonsense\r\n\r\n", id="no HTTP"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nBad header\r\n\r\n", id="no header"),
        pytest.param(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", id="long"),
    ],
)
async def test_what_is_no_request_is_refused(port: Port, request_bytes: bytes) -> None:
    answer = await port.send(request_bytes)

    assert answer.status == 400
    assert answer.values(b"Connection") == [b"close"]
    assert answer.body.endswith(b"\n")


async def test_a_prober_that_left_is_no_error(port: Port) -> None:
    """Probes give up and scrapers go away; a traceback for each would hide the real ones."""

    def leave() -> dict[str, object]:
        port.hang_up()
        return {}

    port.status = leave

    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await port.ask("GET", "/status")

    assert port.complaints.records == []


async def test_a_prober_that_leaves_disturbs_nobody(port: Port) -> None:
    gone = socket.create_connection(("127.0.0.1", port.number))
    gone.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    gone.close()

    answer = await port.ask("GET", "/healthz")

    assert answer.status == 200
    assert port.complaints.records == []


# -- in front of a real proxy ---------------------------------------------------------------------


async def fetch(proxy: RunningProxy, path: str) -> RawAnswer:
    port = int(proxy.app.admin.address.rpartition(":")[2])
    return await call(port, request_head(target=path, tag=None))


async def test_a_running_proxy_is_ready(proxy: RunningProxy) -> None:
    answer = await fetch(proxy, "/readyz")

    assert answer.status == 200


async def test_a_running_proxy_is_measured(proxy: RunningProxy) -> None:
    answer = await fetch(proxy, "/metrics")

    names = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {
        "icr_proxy_tokens",
        "icr_proxy_upstream_connections",
        "icr_proxy_clock_skew_seconds",
    } <= (names)


async def test_a_running_proxy_describes_itself(proxy: RunningProxy) -> None:
    answer = await fetch(proxy, "/status")

    assert json.loads(answer.body)["state"] == "ready"


@pytest.mark.parametrize("path", ["/projects", "/app/installations", "/organizations/1/inventory"])
async def test_nothing_is_forwarded_from_the_admin_port(proxy: RunningProxy, path: str) -> None:
    answer = await fetch(proxy, path)

    assert answer.status == 404
    assert proxy.metric("token_mints_total", kind="installation", result="ok") == 0

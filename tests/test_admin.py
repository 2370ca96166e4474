import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.admin import Admin
from proxy.config import LimitsConfig
from proxy.listeners import Listener
from tests.scenes import RawAnswer, RunningProxy, call, request_head


class Quiet(logging.Handler):
    """Keeps what the server complains about."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Port:
    """An admin port whose answers a test decides."""

    def __init__(self) -> None:
        self.started = True
        self.ready = True
        self.status: Callable[[], Mapping[str, object]] = lambda: {"state": "ready"}
        self.metrics: Callable[[], bytes] = lambda: b"# nothing\n"
        self.complaints = Quiet()
        self.number = 0
        self.hang_up: Callable[[], None] = lambda: None

    async def ask(self, method: str, target: str) -> RawAnswer:
        return await self.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    async def send(self, request: bytes) -> RawAnswer:
        return await call(self.number, request)


@asynccontextmanager
async def listening(port: Port) -> AsyncIterator[None]:
    admin = Admin(
        started=lambda: port.started,
        ready=lambda: port.ready,
        metrics=lambda: port.metrics(),  # noqa: PLW0108 - tests replace them
        status=lambda: port.status(),  # noqa: PLW0108
    )
    logger = logging.Logger("test")  # noqa: LOG001 - not in the global tree
    logger.addHandler(port.complaints)
    listener = Listener(
        "127.0.0.1:0",
        respond=admin,
        refuse=admin.refuse,
        limits=LimitsConfig(),
        tag="X-ICR-Installation-Id",
        logger=logger,
    )
    await listener.open()
    port.number = int(listener.address.rpartition(":")[2])

    def hang_up() -> None:
        for connection in listener._server.connections:
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


PATHS = ["/", "/healthz", "/startupz", "/readyz", "/metrics", "/status"]


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/", b"text/plain; charset=utf-8", b"/healthz /startupz /readyz /metrics /status\n"),
        ("/healthz", b"text/plain; charset=utf-8", b"ok\n"),
        ("/startupz", b"text/plain; charset=utf-8", b"ok\n"),
        ("/readyz", b"text/plain; charset=utf-8", b"ok\n"),
        ("/metrics", b"text/plain; version=1.0.0; charset=utf-8", b"# nothing\n"),
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
async def test_nothing_can_be_changed_from_here(port: Port, method: str, path: str) -> None:
    answer = await port.ask(method, path)

    assert (answer.status, answer.reason) == (405, b"Method Not Allowed")
    assert answer.values(b"Allow") == [b"GET, HEAD"]


async def test_a_body_is_not_waited_for(port: Port) -> None:
    answer = await port.send(
        b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    )

    assert answer.status == 405


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

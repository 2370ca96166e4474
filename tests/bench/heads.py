"""What five clients send: heads with a new path, trace and request ID in each request.

axios, requests and Java's HttpClient: as captured from axios 1.21, requests 2.34 and Java 17. Go
and .NET: as their sources write a request. All were told to send a tag, `traceparent` and
`X-Request-Id`. Run as a program, this tells what a head costs in this process, without any socket:
`python -m tests.bench.heads`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from icr_proxy.forwarding.listener_rules import build_rules, decide
from icr_proxy.forwarding.request_headers import given_ids
from icr_proxy.http1.headers import LoopDetector
from icr_proxy.http1.request_head import HeaderCache, HeadRules
from icr_proxy.http1.request_parser import RequestParser
from tests.support.app_fixture import TAG, config_for

HOST = "Host: @host"
TRACE = "traceparent: 00-0af7651916cd43dd8448@new-b7ad@new-01"
REQUEST_ID = "X-Request-Id: 0b9e4a52-6a3f-4c1e-9b55-@new"
ID = f"{TAG}: bench"
CLIENTS: dict[str, tuple[str, ...]] = {
    "axios": (
        "Accept: application/json, text/plain, */*", ID, TRACE, REQUEST_ID,
        "User-Agent: axios/1.21.1", "Accept-Encoding: gzip, compress, deflate, br", HOST,
        "Connection: keep-alive",
    ),
    "requests": (
        HOST, "User-Agent: python-requests/2.34.2", "Accept-Encoding: gzip, deflate",
        "Accept: */*", "Connection: keep-alive", ID, TRACE, REQUEST_ID,
    ),
    "go": (
        HOST, "User-Agent: Go-http-client/1.1", TRACE.capitalize(),
        "X-Icr-Installation-Id: bench", REQUEST_ID, "Accept-Encoding: gzip",
    ),
    "java": (
        "Connection: Upgrade, HTTP2-Settings", "Content-Length: 0", HOST,
        "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA", "Upgrade: h2c",
        "User-Agent: Java-http-client/17.0.15", "Accept: application/json", TRACE, ID, REQUEST_ID,
    ),
    "dotnet": (HOST, ID, REQUEST_ID, TRACE),
}  # fmt: skip
TARGET = "/organizations/org-@new/inventory/requests?page=1"
# The placeholders are filled in anew for each request; the clients take turns.
FRESH_HEADS = """
local heads, counter, host = {%s}, 0, nil
request = function()
  host = host or wrk.headers["Host"]
  counter = counter + 1
  local head = string.gsub(heads[counter %% #heads + 1], "@host", host)
  return (string.gsub(head, "@new", string.format("%%012x", counter)))
end
"""


def head_of(client: str) -> str:
    """The head that a client sends, with placeholders for what is new."""
    return "\r\n".join([f"GET {TARGET} HTTP/1.1", *CLIENTS[client], "", ""])


def fresh_script() -> str:
    """A script for wrk that sends a new head in each request, of all clients in turn."""
    written = (head_of(client).replace("\r\n", "\\r\\n") for client in CLIENTS)
    return FRESH_HEADS % ", ".join(f'"{each}"' for each in written)


REQUESTS = 2_000
ROUNDS = 9


def main() -> None:
    """Print the microseconds of reading, deciding on and rewriting each client's head."""
    config = config_for("http://127.0.0.1:9")
    rules = build_rules(config, config.listeners[0])
    limits = HeadRules(uri=8192, headers=65536, tag=TAG)
    hops = LoopDetector(b"icr-proxy-01234567")

    def serve(parser: RequestParser, data: bytes) -> None:
        parser.receive(data)
        head = parser.next_head()
        if head is None:
            raise RuntimeError("the head is not whole")
        given_ids(head.section.fields)
        prepared = decide(head, rules, hops=hops).prepared
        if prepared is None:
            raise RuntimeError("the request is refused")
        prepared.block(b"Bearer crs_x", b"id", b"trace")

    print("µs a head: the same again, and new each time")  # noqa: T201
    for client in CLIENTS:
        same, fresh = (_fastest(serve, limits, client, step=step) for step in (0, 1))
        print(f"{client:10} {same:6.1f} {fresh:6.1f}")  # noqa: T201


def _fastest(
    serve: Callable[[RequestParser, bytes], None], limits: HeadRules, client: str, *, step: int
) -> float:
    """The best of some rounds, in microseconds of CPU for one head."""
    head, found = head_of(client).replace("@host", "127.0.0.1:8080"), []
    for number in range(ROUNDS):
        first = number * REQUESTS
        heads = [
            head.replace("@new", f"{step * (first + each):012x}").encode()
            for each in range(REQUESTS)
        ]
        parser = RequestParser(limits, HeaderCache())
        began = time.process_time()
        for data in heads:
            serve(parser, data)
        found.append(time.process_time() - began)
    return min(found) / REQUESTS * 1e6


if __name__ == "__main__":
    main()

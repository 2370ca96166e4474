"""What a command needs to speak to the API by itself: the running proxy's own parts, and no more.

Everything is made when it is first needed, so that `doctor` can say of each part why it cannot be.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from icr_proxy.clock import SYSTEM_CLOCKS
from icr_proxy.credentials.app_client import measure_skew, read_limited, server_date
from icr_proxy.credentials.installations import list_installations
from icr_proxy.credentials.key_ring import KeyRing
from icr_proxy.credentials.token_exchange import ANSWER_LIMIT
from icr_proxy.forwarding.listener_rules import build_rules
from icr_proxy.observability.metrics import Metrics
from icr_proxy.runtime.build_credentials import build_app_client, build_exchange
from icr_proxy.runtime.build_outbound import USER_AGENT, app_headers, build_pool
from icr_proxy.upstream.interface import UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from icr_proxy.clock import Clocks
    from icr_proxy.config.models import Config
    from icr_proxy.credentials.app_client import AppClient
    from icr_proxy.credentials.installations import ListedInstallation
    from icr_proxy.credentials.token_exchange import TokenExchange
    from icr_proxy.http1.headers import Header
    from icr_proxy.upstream.pool import Pool

NO_TRACE = b"00-%b-%b-00" % (b"1" * 32, b"1" * 16)


class AppSession:
    """A short visit to the API with the app's own credentials; an async context manager."""

    def __init__(self, config: Config, *, clocks: Clocks = SYSTEM_CLOCKS) -> None:
        self.config = config
        self.clocks = clocks
        self.skew = 0.0
        """The API's clock minus ours, in seconds, once `measure_skew` was asked."""
        self._headers = app_headers(config)

    @cached_property
    def keys(self) -> KeyRing:
        """The keys. Raises KeyUnusableError."""
        return KeyRing(self.config.app, now=self.clocks.clock)

    @cached_property
    def pool(self) -> Pool:
        """The connections to the API. Raises StartError if the CA file is none."""
        return build_pool(self.config, metrics=Metrics(), clocks=self.clocks)

    @cached_property
    def calls(self) -> AppClient:
        """What the app itself asks the API with; it begins with the clock as measured by then."""
        calls = build_app_client(
            self.config, keys=self.keys, upstream=self.pool, clocks=self.clocks
        )
        calls.skew = self.skew
        return calls

    @cached_property
    def exchange(self) -> TokenExchange:
        """What mints tokens."""
        return build_exchange(self.config, app_client=self.calls, clocks=self.clocks)

    async def measure_skew(self) -> float | None:
        """Ask the API for the time, without any credential; `None` if its answer has no date.

        Raises:
            UpstreamError: there is no answer.
        """
        asked_at = self.clocks.now()
        status, headers = await self.send("HEAD", b"/", self._headers)
        del status  # any answer has a date, a 404 as well
        date = server_date(headers)
        if date is None:
            return None
        self.skew = measure_skew(date, asked_at=asked_at, answered_at=self.clocks.now())
        return self.skew

    async def list_installations(self) -> list[ListedInstallation]:
        """List the active installations.

        Raises:
            MintError: there is no list, and why.
        """
        return await list_installations(self.calls)

    async def read_as_installation(self, target: bytes, *, authorization: bytes) -> int:
        """Send a GET with the headers that a caller's request would leave with; give the status.

        Raises:
            UpstreamError: there is no answer.
        """
        rules = build_rules(self.config, self.config.listeners[0])
        headers = rules.headers.edit(
            (
                (b"Accept", b"application/json"),
                (b"Accept-Encoding", b"identity"),
                (b"User-Agent", USER_AGENT),
            ),
            authorization=authorization,
            request_id=b"icr-proxy-doctor",
            traceparent=NO_TRACE,
        )
        status, _ = await self.send("GET", target, headers)
        return status

    async def revoke(self, authorization: bytes) -> int:
        """Have the API forget the token that is sent; give the status.

        Raises:
            UpstreamError: there is no answer.
        """
        headers = (*self._headers, (b"Authorization", authorization))
        status, _ = await self.send("DELETE", b"/app/installations/token", headers)
        return status

    async def send(
        self, method: str, target: bytes, headers: Sequence[Header]
    ) -> tuple[int, list[Header]]:
        """Send on a new connection, so that nothing need be sent twice; give status and headers."""
        request = UpstreamRequest(method=method, target=target, headers=headers, fresh=True)
        response = await self.pool.send(request)
        try:
            await read_limited(response, limit=ANSWER_LIMIT)
        finally:
            response.close()
        return response.status, response.headers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if "pool" in self.__dict__:
            self.pool.close()

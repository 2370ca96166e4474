"""Sockets for callers: aiohttp's low-level server, one for each configured address."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.addresses import bracketed, split_bind
from proxy.callerconnection import CallerServer
from proxy.errors import BindError

if TYPE_CHECKING:
    import logging
    import ssl

    from proxy.callerconnection import Refuse, Respond
    from proxy.servingconfig import LimitsConfig

LINGER_SECONDS = 1.0  # how long an upload that was refused is read and thrown away
BACKLOG = 1024
HEADERS_MOST = 128  # header lines in a request
HANDSHAKE_SECONDS = 10.0  # for TLS, of which a caller has not said who it is


class Listener:
    """One open socket and the connections on it."""

    def __init__(
        self,
        bind: str,
        *,
        respond: Respond,
        refuse: Refuse,
        limits: LimitsConfig,
        tag: str,
        logger: logging.Logger,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._bind = bind
        self._tls = tls
        self._server = CallerServer(
            respond,
            refuse=refuse,
            tag=tag,
            keepalive_timeout=limits.idle_timeout,
            lingering_time=LINGER_SECONDS,
            max_line_size=limits.uri,
            max_headers=HEADERS_MOST,
            # Different from the other limit, so that `parse_error` can tell them apart.
            max_field_size=limits.headers + (limits.headers == limits.uri),
            auto_decompress=False,  # bodies pass as they are
            access_log=None,
            logger=logger,
        )
        self._sockets: asyncio.Server | None = None
        self.address = bind
        """`host:port` as bound: a configured port 0 is replaced by the real one."""

    async def open(self) -> None:
        """Listen.

        Raises:
            BindError: the address cannot be had; the sentence says why.
        """
        host, port = split_bind(self._bind)
        loop = asyncio.get_running_loop()
        try:
            self._sockets = await loop.create_server(
                self._server,
                host,
                port,
                backlog=BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls is not None else None,
            )
        except OSError as exc:
            reason = exc.strerror or "the address is not usable"
            raise BindError(
                f"cannot listen on {self._bind}: {reason}; is another program using it?"
            ) from None
        name = self._sockets.sockets[0].getsockname()
        self.address = f"{bracketed(name[0])}:{name[1]}"

    @property
    def connections(self) -> int:
        """Connections that are open, idle ones too."""
        return len(self._server.connections)

    def stop_accepting(self) -> None:
        """Take no new connections; end the idle ones."""
        if self._sockets is not None:
            self._sockets.close()
        self._server.pre_shutdown()

    async def close(self) -> None:
        """End every connection, whatever it is doing."""
        self.stop_accepting()
        await self._server.shutdown(0.1)

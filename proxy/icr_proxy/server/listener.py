"""The listening sockets of one configured place, and the connections made there."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import BindError
from icr_proxy.http1.request_head import HeadRules
from icr_proxy.net import addresses
from icr_proxy.net.addresses import bracketed, is_loopback
from icr_proxy.net.proxy_protocol_acceptor import ProxyHeaderReader
from icr_proxy.net.sockets import DEFAULT_MODE, UnixSocket, open_tcp, open_unix
from icr_proxy.server.acceptor import Acceptor
from icr_proxy.server.connection import ClientConnection, ListenerContext
from icr_proxy.server.limits import ConnectionLimit

if TYPE_CHECKING:
    import logging
    import ssl
    from collections.abc import Callable

    from icr_proxy.config.inbound_models import LimitsConfig
    from icr_proxy.server.connection import Refuse, Respond
    from icr_proxy.server.limits import ConnectionSlot

BACKLOG = 1024
SHUTDOWN_SECONDS = 0.1  # that requests have to end when everything is closed
HANDSHAKE_SECONDS = 10.0  # for TLS, of which a caller has not said who it is


def nothing_passed(name: str) -> list[socket.socket]:
    """Refuse every name: the `ListenerOptions.passed` of a process that systemd did not start."""
    raise BindError(f"cannot listen on systemd:{name}: no socket was passed")


class ListenerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one listener."""

    mode: int = DEFAULT_MODE
    """Permissions of a Unix socket."""
    owner: str | None = None
    """User and group that own a Unix socket."""
    may_be_reached: bool = True
    """Whether a socket passed by systemd may accept connections of other machines."""
    passed: Callable[[str], list[socket.socket]] = nothing_passed
    """Returns the sockets that systemd passes under a name."""
    tls: ssl.SSLContext | None = None
    fronted_by: tuple[str, ...] | None = None
    """Networks of load balancers, each of whose connections begins with a PROXY header."""
    front_refused: Callable[[str, str], None] = lambda _reason, _peer: None
    """Called with the reason and the peer of a connection without a valid PROXY header."""
    exhausted: Callable[[str], None] = lambda _bind: None
    """Called when connections wait because this process has no descriptor left."""


ORDINARY = ListenerOptions()


class Listener:
    """Listener at one configured address, and the connections made there."""

    def __init__(
        self,
        bind: str,
        *,
        respond: Respond,
        refuse: Refuse,
        limits: LimitsConfig,
        tag: str,
        logger: logging.Logger,
        door: ListenerOptions = ORDINARY,
        places: ConnectionLimit | None = None,
        evicts: bool = False,
    ) -> None:
        """Serve at `bind`; at the limit, one that `evicts` ends its oldest idle connection."""
        self._bind = bind
        self._door = door
        self._places = places or ConnectionLimit(limits.connections)
        self._evicts = evicts
        self._context = ListenerContext(
            respond=respond,
            refuse=refuse,
            rules=HeadRules(uri=limits.uri, headers=limits.headers, tag=tag),
            limits=limits,
            logger=logger,
        )
        self._accepting: list[Acceptor] = []
        self._unix: UnixSocket | None = None
        self.addresses: tuple[str, ...] = (bind,)
        """Each as bound, `host:port` or `unix:/path`: a port 0 is replaced by the real one."""

    @property
    def address(self) -> str:
        """The first of them."""
        return self.addresses[0]

    async def open(self) -> None:
        """Listen.

        Raises:
            BindError: the address cannot be used; the message says why.
        """
        sockets = await self._open_sockets()
        self.addresses = tuple(address_of(each) for each in sockets)
        self._accepting = [self._accept(each) for each in sockets]

    async def reserve(self) -> list[socket.socket]:
        """Bind without serving; the caller of this method closes the sockets.

        Raises:
            BindError: the address cannot be used.
        """
        return await self._open_sockets()

    async def _open_sockets(self) -> list[socket.socket]:
        door, bind = self._door, self._bind
        path, name = addresses.unix_path(bind), addresses.systemd_name(bind)
        if path is not None:
            self._unix = open_unix(Path(path), mode=door.mode, owner=door.owner, backlog=BACKLOG)
            return [self._unix.socket]
        if name is not None:
            sockets = door.passed(name)
            if not door.may_be_reached:
                _keep_to_this_machine(bind, sockets)
            return sockets
        place = addresses.host_and_port(bind)
        return await open_tcp(*place, backlog=BACKLOG) if place is not None else []

    def _accept(self, listening: socket.socket) -> Acceptor:
        door, identify = self._door, None
        if door.fronted_by is not None:
            identify = ProxyHeaderReader(trusted=door.fronted_by, refused=door.front_refused)
        handshake = {"ssl_handshake_timeout": HANDSHAKE_SECONDS} if door.tls is not None else {}
        return Acceptor(
            listening,
            serve=self.new_connection,
            places=self._places,
            options={"ssl": door.tls, **handshake},
            identify=identify,
            evict=self._evict if self._evicts else None,
            exhausted=lambda: door.exhausted(self._bind),
        )

    def new_connection(
        self, named: str | None = None, slot: ConnectionSlot | None = None
    ) -> ClientConnection:
        """Make the protocol of a new connection; a load balancer may have `named` its client."""
        return ClientConnection(self._context, named=named, slot=slot)

    def _evict(self) -> bool:
        """End the oldest idle connection; return whether there was one."""
        for each in self._context.connections:
            transport = each.transport
            if each.is_idle and transport is not None and not transport.is_closing():
                transport.abort()
                return True
        return False

    @property
    def connections(self) -> int:
        """Number of open connections, idle ones included."""
        return len(self._context.connections)

    @property
    def unsent(self) -> int:
        """Number of connections with a response that is not sent yet."""
        return sum(each.unsent > 0 for each in self._context.connections)

    async def until_sent(self) -> None:
        """Wait until all responses are sent; only after `stop_accepting`."""
        for each in list(self._context.connections):
            await each.until_sent()

    async def until_left(self) -> None:
        """Wait for clients that still send after their response; only after `stop_accepting`."""
        for each in list(self._context.connections):
            await each.until_left()

    def stop_accepting(self) -> None:
        """Accept no new connections; close the idle ones."""
        if self._unix is not None:
            self._unix.remove()
            self._unix = None
        for each in self._accepting:
            each.close()
        for connection in self._context.connections:
            connection.close()

    async def close(self) -> None:
        """Close every connection, whatever it is doing."""
        self.stop_accepting()
        await asyncio.gather(
            *(each.shutdown(SHUTDOWN_SECONDS) for each in self._context.connections)
        )


def address_of(bound: socket.socket) -> str:
    """Format the address of a bound socket."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return f"{addresses.UNIX}{name}"
    return f"{bracketed(name[0])}:{name[1]}"


def _keep_to_this_machine(bind: str, sockets: list[socket.socket]) -> None:
    for each in sockets:
        if each.family != socket.AF_UNIX and not is_loopback(each.getsockname()[0]):
            address = address_of(each)
            for passed in sockets:
                passed.close()
            raise BindError(
                f"cannot listen on {bind}: it is {address}, which can be reached from"
                " other machines, and whoever reaches it acts as the installation; if that is"
                " meant, set exposed: true beside it"
            )

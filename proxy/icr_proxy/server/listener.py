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
    """Stand in for `sockets.Activation.claim` where no service manager is asked."""
    raise BindError(f"cannot listen on systemd:{name}: no socket was passed")


class ListenerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one listener."""

    mode: int = DEFAULT_MODE
    """Permissions of a Unix socket."""
    owner: str | None = None
    """Whose it is."""
    may_be_reached: bool = True
    """Whether other machines may be able to connect to a socket of systemd's."""
    passed: Callable[[str], list[socket.socket]] = nothing_passed
    """What gives the sockets of systemd's."""
    tls: ssl.SSLContext | None = None
    fronted_by: tuple[str, ...] | None = None
    """Networks of load balancers, each of whose connections begins with a PROXY header."""
    front_refused: Callable[[str, str], None] = lambda _reason, _peer: None
    """What hears which connections were refused for want of one."""
    exhausted: Callable[[str], None] = lambda _bind: None
    """What hears that connections wait because this process has no descriptor left."""


ORDINARY = ListenerOptions()


class Listener:
    """One place where callers connect, and the connections made there."""

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
        """Serve at `bind`; all places taken, one that `evicts` ends its oldest idle connection."""
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
            BindError: the place cannot be had; the sentence says why.
        """
        sockets = await self._open_sockets()
        self.addresses = tuple(address_of(each) for each in sockets)
        self._accepting = [self._accept(each) for each in sockets]

    async def reserve(self) -> list[socket.socket]:
        """Take the place without serving anybody; whoever asks closes the sockets.

        Raises:
            BindError: the place cannot be had.
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

    def _accept(self, found: socket.socket) -> Acceptor:
        door, identify = self._door, None
        if door.fronted_by is not None:
            identify = ProxyHeaderReader(trusted=door.fronted_by, refused=door.front_refused)
        handshake = {"ssl_handshake_timeout": HANDSHAKE_SECONDS} if door.tls is not None else {}
        return Acceptor(
            found,
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
        """Make the protocol of a new connection, perhaps of one made for the client `named`."""
        return ClientConnection(self._context, named=named, slot=slot)

    def _evict(self) -> bool:
        """End the connection that is idle and was made first, if there is one."""
        for each in self._context.connections:
            transport = each.transport
            if each.is_idle and transport is not None and not transport.is_closing():
                transport.abort()
                return True
        return False

    @property
    def connections(self) -> int:
        """Connections that are open, idle ones too."""
        return len(self._context.connections)

    @property
    def unsent(self) -> int:
        """On how many of them an answer has not left yet."""
        return sum(each.unsent > 0 for each in self._context.connections)

    async def until_sent(self) -> None:
        """Wait until all answers have left; only after `stop_accepting`."""
        for each in list(self._context.connections):
            await each.until_sent()

    async def until_left(self) -> None:
        """Wait for callers that still send behind their answer; only after `stop_accepting`."""
        for each in list(self._context.connections):
            await each.until_left()

    def stop_accepting(self) -> None:
        """Take no new connections; end the idle ones."""
        if self._unix is not None:
            self._unix.remove()
            self._unix = None
        for each in self._accepting:
            each.close()
        for connection in self._context.connections:
            connection.close()

    async def close(self) -> None:
        """End every connection, whatever it is doing."""
        self.stop_accepting()
        await asyncio.gather(
            *(each.shutdown(SHUTDOWN_SECONDS) for each in self._context.connections)
        )


def address_of(found: socket.socket) -> str:
    """Write where a socket is bound."""
    name = found.getsockname()
    if found.family == socket.AF_UNIX:
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

"""A request in the shape in which aiohttp hands it to a handler; its bytes are what decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

if TYPE_CHECKING:
    from proxy.requesthead import Head

NOWHERE = URL("/")  # aiohttp wants one; what is read is `raw_path`, the target as received


class NoParser:
    """What aiohttp tells its parser, where there is none."""

    def pause_reading(self) -> None:
        """The transport is paused as well."""

    def message_consumed(self) -> None:
        """The queue is counted where it is filled."""


def message_of(head: Head) -> RawRequestMessage:
    """Give aiohttp's own record of a request head."""
    readable = [(n.decode("ascii"), v.decode("utf-8", "surrogateescape")) for n, v in head.headers]
    return RawRequestMessage(
        head.method,
        head.target,
        HttpVersion10 if head.is_old else HttpVersion11,
        CIMultiDictProxy(CIMultiDict(readable)),
        tuple(head.headers),
        should_close=head.is_last,
        compression=None,
        upgrade=False,
        chunked=head.length is None,
        url=NOWHERE,
    )

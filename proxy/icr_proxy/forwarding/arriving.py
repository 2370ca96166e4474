"""From what a person types to a request as it would arrive: which listener, target, headers.

A URL may be the address of a listener, or the API's own, as a tool with `HTTP_PROXY` sends it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from icr_proxy.forwarding.explain import Question
from icr_proxy.net import addresses
from icr_proxy.net.addresses import bracketed
from icr_proxy.policy.router import ABSOLUTE, DEFAULT_PORTS, SERVER_WIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.config.inbound_models import ListenerConfig
    from icr_proxy.config.models import Config

Header = tuple[bytes, bytes]

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
METHOD = NAME
VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9110, 5.5
WITHOUT_HOLES = re.compile(r"[^\x00-\x20\x7f]+")
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104  # shown, not bound


def arrive(
    config: Config,
    method: str,
    url: str,
    headers: Iterable[str],
    *,
    listener: str | None,
    caller: str | None = None,
) -> Question:
    """Make the request.

    Raises:
        ValueError: it could never arrive; says why.
    """
    if METHOD.fullmatch(method) is None:
        raise ValueError(f"{method!r} is not a method; write GET, POST, …")
    if caller is not None and caller not in {each.name for each in config.callers}:
        names = ", ".join(each.name for each in config.callers) or "none"
        raise ValueError(f"there is no caller {caller}; there is {names}")
    url = url.partition("#")[0]
    absolute = ABSOLUTE.fullmatch(url)
    is_usual = absolute is not None or url.startswith("/") or (method, url) == SERVER_WIDE
    if WITHOUT_HOLES.fullmatch(url) is None or not is_usual:
        raise ValueError("the URL must be a path that begins with / or an http(s) URL, no spaces")
    user = ""
    chosen = _named(config.listeners, listener) if listener is not None else None
    if absolute is None:
        chosen = chosen or config.listeners[0]
        host, target = _own_name(chosen), url
    else:
        scheme, authority, rest = absolute.groups()
        user, _, host = authority.rpartition("@")
        target = f"{scheme}://{host}{rest}"
        if not _is_upstream(config, url):
            chosen = chosen or _on_port(config.listeners, url)
            target = rest if rest.startswith("/") else f"/{rest}"
    given = tuple(read_header(line) for line in headers)
    if user and not any(name.lower() == b"authorization" for name, _ in given):
        given = (basic_of(user), *given)
    if not any(name.lower() == b"host" for name, _ in given):
        given = ((b"Host", host.encode()), *given)
    return Question(
        method=method,
        target=target,
        headers=given,
        listener=chosen or config.listeners[0],
        caller=caller,
    )


def read_header(line: str) -> Header:
    """Read `Name: value`.

    Raises:
        ValueError: it is no header.
    """
    name, colon, value = line.partition(":")
    value = value.strip(" \t")
    if not colon or NAME.fullmatch(name) is None or VALUE.fullmatch(value) is None:
        raise ValueError("a header is written 'Name: value'")
    return name.encode("ascii"), value.encode("utf-8", "surrogateescape")


def basic_of(user: str) -> Header:
    """Give the header that clients make of the user part of a URL (RFC 7617)."""
    name, _, password = user.partition(":")
    credentials = f"{unquote(name)}:{unquote(password)}".encode("utf-8", "surrogateescape")
    return b"Authorization", b"Basic " + b64encode(credentials)


def _named(listeners: Sequence[ListenerConfig], wanted: str) -> ListenerConfig:
    bind = addresses.read_bind(wanted)
    found = next((each for each in listeners if each.bind == bind), None)
    if found is None:
        raise ValueError(f"there is no listener {bind}; there is {_list(listeners)}")
    return found


def _is_upstream(config: Config, url: str) -> bool:
    asked, ours = _place(url), _place(config.upstream.base_url)
    return (
        asked is not None
        and ours is not None
        and asked[0] == ours[0]
        and (asked[1] in (ours[1], *DEFAULT_PORTS.values()))
    )


def _on_port(listeners: Sequence[ListenerConfig], url: str) -> ListenerConfig:
    place = _place(url)
    for each in listeners:
        bound = addresses.host_and_port(each.bind)
        if place is not None and bound is not None and bound[1] == place[1]:
            return each
    raise ValueError(
        f"the URL leads neither to the API nor to a listener; there is {_list(listeners)}"
    )


def _place(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme.lower()]
    except ValueError:
        return None


def _own_name(listener: ListenerConfig) -> str:
    bound = addresses.host_and_port(listener.bind)
    if bound is None:
        return "localhost"
    host, port = bound
    return f"{bracketed(ANYWHERE.get(host, host))}:{port}"


def _list(listeners: Sequence[ListenerConfig]) -> str:
    return ", ".join(each.bind for each in listeners)

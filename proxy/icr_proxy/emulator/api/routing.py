"""Which endpoint a target means, read as leniently as any server in front of it might.

Decoded, dot-collapsed, slash-collapsed, case-folded, backslashes turned (A): more forgiving than
one framework would be, so that a disguised `/app` path which slips through a proxy really acts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from icr_proxy.emulator.api.calls import Route

# Below these a path is not tidied: the playground must show what arrived.
_VERBATIM: Final = "/_emulator/echo/"

# Whether `/v0.5/organizations` equals `/organizations` is not said; here it does (A).
_OLD_PREFIX: Final = ("v0.5", "organizations")

_TAIL: Final = "{tail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A route and what its placeholders stand for."""

    route: Route
    params: dict[str, str]


def split_target(target: str) -> tuple[str, str]:
    """Split a request target into path and query; of an absolute form the path counts."""
    if not target.startswith("/"):
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    return path, query


def segments(path: str) -> tuple[str, ...]:
    """Tidy a path and take it apart."""
    kept: list[str] = []
    for part in unquote(path).replace("\\", "/").split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    if tuple(part.lower() for part in kept[:2]) == _OLD_PREFIX:
        return tuple(kept[1:])
    return tuple(kept)


class EndpointRouter:
    """All routes, sorted by method and number of segments."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._rows: dict[tuple[str, int], list[tuple[tuple[str, ...], Route]]] = {}
        self._verbatim: list[Route] = []
        for route in routes:
            self._enter(route)

    def match(self, method: str, path: str) -> Match | None:
        """Find the first route that fits; `HEAD` works wherever `GET` does."""
        wanted = "GET" if method == "HEAD" else method
        if path.startswith(_VERBATIM):
            tail = path.removeprefix(_VERBATIM)
            return Match(route=self._verbatim[0], params={"tail": tail})
        parts = segments(path)
        for pattern, route in self._rows.get((wanted, len(parts)), ()):
            params = _fit(pattern, parts)
            if params is not None:
                return Match(route=route, params=params)
        return None

    def _enter(self, route: Route) -> None:
        pattern = tuple(part for part in route.template.split("/") if part)
        if pattern[-1] == _TAIL:
            self._verbatim.append(route)
            return
        self._rows.setdefault((route.method, len(pattern)), []).append((pattern, route))


def _fit(pattern: tuple[str, ...], parts: tuple[str, ...]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for expected, part in zip(pattern, parts, strict=True):
        if expected.startswith("{"):
            params[expected[1:-1]] = part
        elif expected.lower() != part.lower():
            return None
    return params

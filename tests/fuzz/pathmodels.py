"""How servers read a path: models in a few lines each, and targets that lead them astray.

Node's own parser is asked as well, by `tests/unit/policy/test_paths_readings.py`.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes

from icr_proxy.policy.operations import match, match_exactly
from icr_proxy.policy.router import take_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

METHODS = ("GET", "POST", "DELETE")


def without_dots(path: str) -> str:
    """Remove dot segments (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def rfc3986(path: str) -> str:
    """Remove dot segments and nothing else."""
    return without_dots(path)


def rfc3986_normalized(path: str) -> str:
    """Decode unreserved characters first (RFC 3986, 6.2.2)."""
    return without_dots(
        re.sub(r"%(2[de]|3\d|[46][1-9a-f]|[57][0-9a]|5f|7e)", _char, path, flags=re.IGNORECASE)
    )


def whatwg(path: str) -> str:
    """`new URL(path, base).pathname`, with everything that the standard has for special schemes."""
    path = re.sub("[\\t\\r\\n]", "", path).partition("#")[0].replace("\\", "/")
    if path.startswith("//"):
        path = re.sub("^/+[^/]*", "", path) or "/"
    path = re.sub(r"(?<=/)(\.|%2e)(?=/|$)", ".", path, flags=re.IGNORECASE)
    path = re.sub(r"(?<=/)(\.|%2e){2}(?=/|$)", "..", path, flags=re.IGNORECASE)
    return without_dots(path)


def nginx(path: str) -> str:
    """Decode once, merge slashes, remove dot segments."""
    return without_dots(re.sub("/+", "/", unquote(path, errors="surrogateescape")))


def nginx_unmerged(path: str) -> str:
    """The same with `merge_slashes off`."""
    return without_dots(unquote(path, errors="surrogateescape"))


def go_mux(path: str) -> str:
    """`path.Clean` of the decoded path."""
    return re.sub("^//+", "/", posixpath.normpath(unquote(path, errors="surrogateescape")))


def go_segments(path: str) -> str:
    """Clean the path as it is written, then decode each segment (`ServeMux` since Go 1.22)."""
    cleaned = re.sub("^//+", "/", posixpath.normpath(path))
    decoded = (unquote(name, errors="surrogateescape") for name in cleaned.split("/"))
    return "/".join(name.replace("/", "%2f").replace("\\", "%5c") for name in decoded)


def tomcat(path: str) -> str:
    """Remove path parameters, decode once, normalize."""
    path = unquote(re.sub(";[^/]*", "", path), errors="surrogateescape")
    return without_dots(re.sub("/+", "/", path.replace("\\", "/")))


def jetty(path: str) -> str:
    """Decode first, then cut parameters."""
    path = re.sub(";[^/]*", "", unquote(path, errors="surrogateescape"))
    return without_dots(re.sub("/+", "/", path))


def express(path: str) -> str:
    """Take the path as it is; `missed` looks at it in both cases."""
    return path.partition("#")[0]


def iis(path: str) -> str:
    """Decode twice and `%u` as well, take a backslash for a slash, drop dots and blanks at ends."""
    path = re.sub("%u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), path, flags=re.IGNORECASE)
    path = unquote(unquote(path, errors="ignore"), errors="ignore").replace("\\", "/")
    path = re.sub(r"(?<=[^/.])[. ]+(?=/|$)", "", path)
    return without_dots(re.sub("/+", "/", unicodedata.normalize("NFKC", path)))


def c_string(path: str) -> str:
    """Decode once, end at NUL."""
    return without_dots(unquote(path, errors="surrogateescape").partition("\0")[0])


def php(path: str) -> str:
    """Decode, cut the query again, trim."""
    return without_dots(re.split("[?#]", unquote(path, errors="ignore"), maxsplit=1)[0].strip())


def lenient(path: str) -> str:
    """Decode overlong UTF-8 as old decoders did, drop what is no ASCII."""
    octets = unquote_to_bytes(path.encode("utf-8", "surrogateescape"))
    octets = re.sub(rb"[\xc0\xc1][\x80-\xbf]", _ascii, octets)
    text = re.sub(r"[^!-~]", "", octets.decode("latin-1"))
    return without_dots(text)


def _char(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))


def _ascii(overlong: re.Match[bytes]) -> bytes:
    return bytes([(overlong[0][0] & 1) << 6 | overlong[0][1] & 0x3F])


MODELS: tuple[Callable[[str], str], ...] = (
    rfc3986,
    rfc3986_normalized,
    whatwg,
    nginx,
    nginx_unmerged,
    go_mux,
    go_segments,
    tomcat,
    jetty,
    express,
    iis,
    c_string,
    php,
    lenient,
)

PATHS = (
    "/v1/retire",
    "/v1/transfer",
    "/v1/o1/accounts",
    "/v1/projects/p1",
    "/organizations/o1/inventory/requests/retire",
    "/organizations/o1/warehouse/inventory/reservations",
    "/carbonCredits/projects/p1",
    "/projects/find/project",
    "/app/installations",
)
PIECES = (
    "..", ".", "/", "//", "/../", "/./", "\\", ";", ";x", ";x=1", "..;", "..;/", "%2e", "%2E%2e",
    ".%2e", "%252e%252e", "%2f", "%2F", "%252f", "%5c", "%5C", "%255c", "%00", "%2500", "%20",
    "%09", "%0a", "%0d%0a", "#", "%23", "%3f", "%3b", "%3B", "%c0%af", "%c0%ae", "%e0%80%af", "%ff",
    "%80", "%EF%BC%8F", "%EF%BC%8E", "%E2%80%A5", "%e2%80%8b", "%c2%a0", "%u002e", "%u002f",
    "%U002F", "%", "%2", "%zz", "...", "....", "x", "app", "v1", "%2561", "+", "~", "*", "@", ":",
    "//x", "/x/..", "%EF%BC%85", "%C3%A9", "!",
)  # fmt: skip


def make_target(random: Random) -> str:
    """Give a target that begins as a path of the API and was changed in a few places."""
    target = random.choice(PATHS)
    for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4))):
        at = random.randrange(len(target) + 1)
        change = random.random()
        if change < 0.6:
            target = target[:at] + random.choice(PIECES) + target[at:]
        elif change < 0.7:
            target = target[:at] + target[at:].upper()
        elif change < 0.8:
            target += "/" + random.choice(PATHS).lstrip("/")
        else:
            target = (
                target[:at]
                + "".join(f"%{ord(c):02x}" for c in target[at : at + 1])
                + target[at + 1 :]
            )
    return target if target.startswith("/") else "/" + target


def missed(method: str, target: str, routed: Iterable[str]) -> list[str]:
    """Name what a server would do that the proxy did not decide on; nothing if it is refused."""
    taken = take_apart(method, target)
    if taken.fault is not None or taken.may_reach_app:
        return []
    decided = {taken.operation.name} | {reading.operation.name for reading in taken.others}
    found = []
    for path in routed:
        plain = path.rstrip("/") or "/"
        asked = {match(method, plain.casefold()).name, match_exactly(method, plain).name}
        if re.match("/+app(?:/|$)", plain):
            found.append(f"{target!r} is read as {path!r}")
        found += [f"{target!r} is read as {path!r}: {name}" for name in asked - decided]
    return found


def play(random: Random, *, counts: Counter[str]) -> list[str]:
    """Ask all models about one target."""
    method, target = random.choice(METHODS), make_target(random)
    path = target.partition("?")[0]
    taken = take_apart(method, target)
    counts["refused" if taken.fault or taken.may_reach_app else "decided"] += 1
    return missed(method, target, [model(path) for model in MODELS])

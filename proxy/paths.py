r"""One path for decisions, and whether a target may lie under `/app`.

A target can be written in many ways that some server along the way reads as one path (RFC 3986,
6.2.2, and all that servers do beyond it). What is forwarded are the bytes as received; what is
decided here is decided on a copy with every disguise taken off. Nothing here knows what a path
means, except that `/app` is where a JWT, or a token's own revocation, would do harm.

Two questions get two answers. `decision_path` gives *one* reading, the most undisguised one.
`is_app_path` asks whether *any* server could arrive at `/app`, and would rather refuse too much:
it looks at the finest split of the target that any server can make. A segment which is `app` to
some server is `app` in that split as well, so that only the way to it remains to be judged.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Where a target goes that is still not decoded after `_ROUNDS`: below `/app`, hence refused, and
# no operation.
HOSTILE: Final = "/app"

# Honest targets are encoded once, by accident twice; how much work there is, an attacker picks.
_ROUNDS: Final = 8

# RFC 3986 `pchar`, less what has more than one reading: `%`, `;`, a dot at the end of a segment
# (Windows drops it) and segments of dots. Possessive, so that no target makes it backtrack.
_CHAR: Final = r"[A-Za-z0-9_~:@!$&'()*+,=-]++"
_PLAIN: Final = re.compile(rf"(?=/)((?:/{_CHAR}(?:\.{_CHAR})*+)*+)/?(?:\?.*)?", re.DOTALL)

# `%41`, and `%u0041` as once understood by IIS.
_ESCAPE: Final = re.compile(rb"%(?:u([0-9a-f]{4})|([0-9a-f]{2}))", re.IGNORECASE)

# ASCII written in two to six bytes (RFC 3629, 3 forbids it): `%c0%af` was a `/` to many decoders.
_OVERLONG: Final = re.compile(
    rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80\x81][\x80-\xbf]|\xf0\x80[\x80\x81][\x80-\xbf]"
    rb"|\xf8\x80\x80[\x80\x81][\x80-\xbf]|\xfc\x80\x80\x80[\x80\x81][\x80-\xbf]"
)

# To a WHATWG URL parser `\` is `/`.
_SLASH: Final = re.compile(r"[/\\]")

# Matrix parameters (servlets drop them: `/..;/app`), and what was `%3f` or `%23` to begin with.
_SUFFIX: Final = re.compile(r"[;?#].*", re.DOTALL)

# Whether `/v1/app` is another name of `/app` is not documented, so any version will do.
_VERSION: Final = re.compile(r"v[0-9].*", re.DOTALL)
_PLAIN_APP: Final = re.compile(r"/(?:v[0-9][^/]*+/)*+app(?:/|\Z)")


def is_plain(target: str) -> bool:
    """Tell whether every server reads the same path, up to the case of its letters."""
    return _PLAIN.fullmatch(target) is not None


def decision_path(target: str) -> str:
    """Give the path of an origin-form target with every disguise taken off; never raises.

    Begins with a slash, has no query, no empty or dot segment, no trailing slash, and is
    case-folded. Of itself it gives itself.
    """
    plain = _PLAIN.fullmatch(target)
    if plain is not None:
        return plain[1].lower() or "/"
    path = re.split("[?#]", target, maxsplit=1)[0]
    text = _undisguised(_octets(path), letters=_loose, junk="")
    if text is None:
        return HOSTILE
    kept: list[str] = []
    for name in _names(text):
        if name == "..":
            del kept[-1:]
        elif name.strip("."):
            kept.append(name.rstrip("."))
    return "/" + "/".join(kept)


def is_app_path(target: str) -> bool:
    """Tell whether any server could take the target for `/app` or for something under it."""
    plain = _PLAIN.fullmatch(target)
    if plain is not None:
        return _PLAIN_APP.match(plain[1].lower()) is not None
    path = target.partition("?")[0]  # a `#` may or may not end it: `/#/../app`
    octets = {_octets(path), path.encode("latin-1", "ignore")}
    texts = (text for each in octets for text in _readings(each))
    return any(text is None or _may_reach_app(text) for text in texts)


def _readings(octets: bytes) -> list[str | None]:
    """Give what servers of every kind may read, None for what is beyond all reading."""
    plainer = _without_escapes(octets)
    if plainer is None:
        return [None]
    kinds = (_bare,) if plainer.isascii() else (_loose, _folded, _bare)
    # What is no letter is dropped by one server and ends the name for another.
    return [_undisguised(plainer, letters=kind, junk=junk) for kind in kinds for junk in ("", ";")]


def _may_reach_app(text: str) -> bool:
    """Tell whether all that stands before a segment `app` may vanish.

    With a dot segment among it, anything may: how much `..` takes away depends on what the server
    takes for one segment. So it is with an empty one: `new URL("//x/app", base)` has the path
    `/app`. Neither is in the target of a caller who means well and asks for something named `app`.
    """
    names = [name.rstrip(".") for name in _names(text)]
    if "app" not in names:
        return False
    first = names.index("app")
    last = len(names) - 1 - names[::-1].index("app")
    return "" in names[:last] or all(_VERSION.fullmatch(name) for name in names[:first])


def _undisguised(octets: bytes, *, letters: Callable[[bytes], str], junk: str) -> str | None:
    """Undo escapes, then letters, until nothing moves; None if it still moves after `_ROUNDS`."""
    for _ in range(_ROUNDS):
        decoded = _without_escapes(octets)
        if decoded is None:
            return None
        text = letters(decoded).casefold()
        if not text.isprintable() or " " in text:  # controls, white space, broken bytes
            text = "".join(c if c.isprintable() and c != " " else junk for c in text)
        octets = text.encode()
        if octets == decoded:
            return text
    return None


def _without_escapes(octets: bytes) -> bytes | None:
    for _ in range(_ROUNDS):
        decoded = _ESCAPE.sub(_unescaped, octets)
        if decoded == octets:
            return decoded
        octets = decoded
    return None


def _loose(octets: bytes) -> str:
    """Read letters as a server does that takes anything for what it looks like.

    NFKC makes the usual ones of full-width letters, slashes, dots and percent signs.
    """
    text = _OVERLONG.sub(_ascii, octets).decode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFKC", text)


def _folded(octets: bytes) -> str:
    """Read letters as a server does that keeps what NFKC makes ASCII, and nothing else."""
    text = unicodedata.normalize("NFKC", octets.decode("utf-8", "surrogateescape"))
    return re.sub(r"[^\x00-\x7f]", "\0", text)


def _bare(octets: bytes) -> str:
    """Read letters as a server does that knows ASCII alone."""
    return re.sub(rb"[\x80-\xff]", b"\0", octets).decode("ascii")


def _octets(path: str) -> bytes:
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that no decoder of bytes can have made
        return path.encode("utf-8", "ignore")


def _unescaped(escape: re.Match[bytes]) -> bytes:
    wide, narrow = escape.groups()
    if narrow is not None:
        return bytes.fromhex(narrow.decode())
    return chr(int(wide, 16)).encode("utf-8", "ignore")


def _ascii(overlong: re.Match[bytes]) -> bytes:
    octets = overlong[0]
    return bytes([(octets[-2] & 1) << 6 | octets[-1] & 0x3F])


def _names(text: str) -> list[str]:
    """Split into segments without their parameters."""
    segments = _SLASH.split(text)
    if segments[0] == "":  # what stands before the first slash
        del segments[0]
    return [_SUFFIX.sub("", segment) for segment in segments]

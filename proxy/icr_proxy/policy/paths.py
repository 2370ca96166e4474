r"""Readings of a path: does any lead to `/app` or have a dot segment, and what else is there.

Servers read one target in many ways (RFC 3986, 6.2.2, and all that servers do beyond it). What is
forwarded are the bytes as received; decisions are made on copies. Nothing here knows what a path
means, except that `/app` is where a JWT, or a token's own revocation, would do harm.

`readings` applies all that servers are known to do, in every order, until nothing new comes.
`decision_path` gives *one* reading, the most undisguised one: for rules, log and people.
`is_app_path` asks whether *any* server could arrive at `/app`, and would rather refuse too much.

The cost is bounded before anybody is authenticated: a path is plain, or it is short and has few
readings, or `readings` gives up.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The decision path of a target that cannot be read within the bounds below.
HOSTILE: Final = "/app"

# Honest targets are encoded once, by accident twice.
DECODINGS_MOST: Final = 8
# Characters of a path that is not plain; IDs have 64 at most, and paths of the API five segments.
ODD_MOST: Final = 1024
# Readings of one target: a name with blanks, slashes and letters of others has about thirty.
READINGS_MOST: Final = 48
# What all steps together may cost for one target, in units of some 15 ns. Each step costs 8, one
# for each 16 characters, and something for each place where there is something to do.
WORK_MOST: Final = 6_000

# RFC 3986 `pchar`, less what has more than one reading: `%`, `;`, a dot at the end of a segment
# (Windows drops it) and segments of dots. Possessive, so that no target makes it backtrack.
_CHAR: Final = r"[A-Za-z0-9_~:@!$&'()*+,=-]++"
_PLAIN: Final = re.compile(rf"(?=/)((?:/{_CHAR}(?:\.{_CHAR})*+)*+)/?(?:\?.*)?", re.DOTALL)

# Between the dots and around them may stand what is no letter to somebody.
_DOT_SEGMENT: Final = re.compile(r"/[^!-~]*\.(?:\.|[^!-~])*+(?:[/;?#]|(?<=[^!-~])|\Z)")
_TRAILING_DOTS: Final = re.compile(r"\.+(?=/|\Z)")

# `%u0041` as once understood by IIS.
_WIDE: Final = re.compile(r"%u([0-9a-f]{4})", re.IGNORECASE)
_ENCODED_SLASH: Final = re.compile(r"%(2f|5c)", re.IGNORECASE)

# ASCII written in two to six bytes (RFC 3629, 3 forbids it): `%c0%af` was a `/` to many decoders.
_OVERLONG: Final = re.compile(
    rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80\x81][\x80-\xbf]|\xf0\x80[\x80\x81][\x80-\xbf]"
    rb"|\xf8\x80\x80[\x80\x81][\x80-\xbf]|\xfc\x80\x80\x80[\x80\x81][\x80-\xbf]"
)
_ODD: Final = re.compile(r"[^!-~]")
_VISIBLE: Final = bytes(range(0x21, 0x7F))

# Matrix parameters (servlets drop them: `/..;/app`), and what was `%3f` or `%23` to begin with.
_PARAMETER: Final = re.compile(r";[^/]*")
_QUERY: Final = re.compile(r"[?#][^/]*")
# To a WHATWG URL parser `\` is `/`.
_SLASH: Final = re.compile(r"[/\\]+")
_SLASHES: Final = re.compile(r"//+")
# `new URL("//x/app", base)` has the path `/app`.
_AUTHORITY: Final = re.compile(r"//+[^/]*")
_SUFFIX: Final = re.compile(r"[;?#][^/\\]*")

# Whether `/v1/app` is another name of `/app` is not documented, so any version will do.
_PLAIN_APP: Final = re.compile(r"/(?:v[0-9][^/]*+/)*+app\.*(?:/|\Z)")
_EMPTY_SEGMENT: Final = re.compile(r"/\.*/")
_APP_SEGMENT: Final = re.compile(r"/app\.*(?:/|\Z)")


def is_plain(target: str) -> bool:
    """Tell whether every server reads the same path, up to the case of its letters."""
    return _PLAIN.fullmatch(target) is not None


def plain_path(target: str) -> str | None:
    """Give the path of a plain target, without a slash at its end; None if it is not plain."""
    plain = _PLAIN.fullmatch(target)
    return None if plain is None else plain[1] or "/"


def decision_path(target: str) -> str:
    """Give the path of an origin-form target with every disguise taken off; never raises.

    Begins with a slash, has no query, no empty or dot segment, no trailing slash, and is
    case-folded. Of itself it gives itself.
    """
    plain = plain_path(target)
    if plain is not None:
        return plain.lower()
    text = _undisguised(re.split("[?#]", target, maxsplit=1)[0])
    if text is None:
        return HOSTILE
    if "." not in text:
        return "/" + "/".join(filter(None, _names(text)))
    kept: list[str] = []
    for name in _names(text):
        if name == "..":
            del kept[-1:]
        elif name.strip("."):
            kept.append(name.rstrip("."))
    return "/" + "/".join(kept)


def is_app_path(target: str) -> bool:
    """Tell whether any server could take the target for `/app` or for something under it."""
    texts = readings(target)
    return texts is None or any(map(may_be_app, texts))


def may_be_app(text: str) -> bool:
    """Tell whether one reading is `/app`, or under it, or may be when segments vanish.

    With a dot segment before `app`, anything before it may vanish: how much `..` takes away depends
    on what the server takes for one segment. So it is with an empty segment. Neither is in the
    target of a caller who means well and asks for something named `app`.
    """
    text = text.casefold()
    if "app" not in text:
        return False
    if _PLAIN_APP.match(text) is not None:
        return True
    empty = _EMPTY_SEGMENT.search(text)
    return empty is not None and _APP_SEGMENT.search(text, empty.end() - 1) is not None


def has_dot_segment(text: str) -> bool:
    """Tell whether one reading has a segment of dots alone; some servers drop trailing dots."""
    return _DOT_SEGMENT.search(text) is not None


def readings(target: str) -> tuple[str, ...] | None:
    """Give every path that some server may read, as received first; None if there are too many.

    Each begins with a slash, may end with one, and has the case in which it is written.
    """
    plain = plain_path(target)
    if plain is not None:
        return (plain,)
    path = target.partition("?")[0]  # a `#` may or may not end it
    if len(path) > ODD_MOST:
        return None
    found: dict[str, int] = {}  # each text, and after how many decodings it was reached
    _add(found, path, 0)
    if not path.isascii():  # bytes that were taken for Latin-1
        _add(found, _text(path.encode("latin-1", "ignore")), 0)
    waiting, work = list(found), 0
    for text in waiting:  # which grows
        for read, cost in _steps(text):
            work += cost
            decodings = found[text] + (read in _DECODINGS)
            if work > WORK_MOST or decodings > DECODINGS_MOST:
                return None
            new = read(text)
            if _add(found, new, decodings):
                waiting.append(new)
        if len(found) > READINGS_MOST:
            return None
    return tuple(found)


def without_trailing_dots(text: str) -> str:
    """Read a path as Windows does, where no name ends with a dot."""
    return _TRAILING_DOTS.sub("", text) if "./" in text or text.endswith(".") else text


def _add(found: dict[str, int], text: str, decodings: int) -> bool:
    if not text.startswith("/"):
        text = "/" + text
    if text in found:
        return False
    found[text] = decodings
    return True


def _steps(text: str) -> Iterator[tuple[Callable[[str], str], int]]:
    """Give each thing that a server may do to a text, if there is something to do; and its cost."""
    least = 8 + len(text) // 16
    for sign, price, reads in _BY_SIGN:
        count = text.count(sign)
        if count:
            for read in reads:
                yield read, least + price * count
    odd = len(_octets(text).translate(None, _VISIBLE))
    if odd:
        for read in _OF_ODD:
            yield read, least + 4 * odd
        if not text.isascii():
            yield _loose, least + 8 * odd
            if not text.isprintable() or " " in text:
                yield _without_junk, least + 4 * len(text)


def _decoded(text: str) -> str:
    return _text(unquote_to_bytes(_octets(text)))


def _decoded_within_segments(text: str) -> str:
    """Decode as a server does that splits the path first: `%2f` stays."""
    return _decoded(_ENCODED_SLASH.sub(lambda escape: "%25" + escape[1].lower(), text))


def _decoded_wide(text: str) -> str:
    return _WIDE.sub(_wide, text)


def _wide(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)).encode("utf-8", "ignore").decode()


def _without_parameters(text: str) -> str:
    return _PARAMETER.sub("", text)


def _up_to_parameter(text: str) -> str:
    return text.partition(";")[0]


def _without_queries(text: str) -> str:
    return _QUERY.sub("", text)


def _up_to_query(text: str) -> str:
    return re.split("[?#]", text, maxsplit=1)[0]


def _with_slashes(text: str) -> str:
    return text.replace("\\", "/")


def _with_slashes_merged(text: str) -> str:
    return _SLASHES.sub("/", text)


def _without_authority(text: str) -> str:
    return _AUTHORITY.sub("", text, count=1) if text.startswith("//") else text


def _loose(text: str) -> str:
    """Read letters as a server does that takes anything for what it looks like.

    NFKC makes the usual ones of full-width letters, slashes, dots and percent signs.
    """
    plainer = _text(_OVERLONG.sub(_ascii, _octets(text)))
    return unicodedata.normalize("NFKC", plainer).casefold()


def _without_odd(text: str) -> str:
    """Drop all but visible ASCII: controls, blanks, broken bytes, other letters."""
    return _ODD.sub("", text)


def _cut_at_odd(text: str) -> str:
    """End a name at what is not visible ASCII."""
    return _ODD.sub(";", text)


def _up_to_nul(text: str) -> str:
    return text.partition("\0")[0]


def _without_junk(text: str) -> str:
    """Drop what is no letter anywhere: controls, blanks, broken bytes."""
    if text.isascii():
        return _ODD.sub("", text)
    return "".join(c for c in text if c.isprintable() and c != " ")


_DECODINGS: Final = frozenset({_decoded, _decoded_within_segments, _decoded_wide})
# What gives a step something to do, the cost of each place, and the steps.
_BY_SIGN: Final = (
    ("%", 12, (_decoded,)),
    ("%2f", 16, (_decoded_within_segments,)),
    ("%2F", 16, (_decoded_within_segments,)),
    ("%5c", 16, (_decoded_within_segments,)),
    ("%5C", 16, (_decoded_within_segments,)),
    ("%u", 40, (_decoded_wide,)),
    ("%U", 40, (_decoded_wide,)),
    ("\\", 1, (_with_slashes,)),
    (";", 4, (_without_parameters, _up_to_parameter)),
    ("?", 4, (_without_queries, _up_to_query)),
    ("#", 4, (_without_queries, _up_to_query)),
    ("//", 4, (_with_slashes_merged, _without_authority)),
    ("\0", 1, (_up_to_nul,)),
)
_OF_ODD: Final = (_without_odd, _cut_at_odd)


def _undisguised(path: str) -> str | None:
    """Undo escapes, then letters, until nothing moves; None if it still moves after some rounds."""
    if len(path) > ODD_MOST:
        return None
    text = path
    for _ in range(DECODINGS_MOST):
        plainer = _loose(_decoded_wide(_decoded(text)))
        if not plainer.isprintable() or " " in plainer:
            plainer = _without_junk(plainer)
        if plainer == text:
            return text
        text = plainer
    return None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(path: str) -> bytes:
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that no decoder of bytes can have made
        return path.encode("utf-8", "ignore")


def _ascii(overlong: re.Match[bytes]) -> bytes:
    octets = overlong[0]
    return bytes([(octets[-2] & 1) << 6 | octets[-1] & 0x3F])


def _names(text: str) -> list[str]:
    """Split into segments without their parameters."""
    segments = _SLASH.split(_SUFFIX.sub("", text))
    if segments[0] == "":  # what stands before the first slash
        del segments[0]
    return segments

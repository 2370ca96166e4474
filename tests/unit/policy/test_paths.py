from __future__ import annotations

import functools
import posixpath
import re
import string
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from icr_proxy.policy import paths


def _encoded(text: str, *, times: int) -> str:
    for _ in range(times):
        text = "".join(f"%{octet:02x}" for octet in text.encode())
    return text


def _nested(text: str, *, times: int) -> str:
    """Hide each escape behind a NUL that another escape hides."""
    for _ in range(times):
        text = text.translate({ord("%"): "%\x0025", 0: "%\x0000"})
    return text


# Edge rows first. What each server along the way may do to arrive at `/app` stands beside the rows.
DISGUISES = [
    # decoded more often than the bound: nobody's honest target
    "/%" + "25" * 12 + "61pp",
    "/projects/%" + "25" * 12 + "61",
    _nested("/projects/%61", times=9),
    _nested("/%61pp", times=3),
    "/projects/" + "%25" * 3 + "25" * 12 + "61",
    # plainly
    "/app",
    "/app/",
    "/app/installations",
    "/app/accessTokens",
    "/app?x",
    "/app?",
    "/app#x",
    "/app#",
    "/app/?x=/..",
    "app",
    "app/installations",
    # letters in the other case
    "/APP",
    "/App/Installations/Token",
    # percent-encoding, once and again
    "/%61pp",
    "/%61%70%70",
    "/%41PP/installations",
    "/%2561pp",
    "/%252561pp",
    "/ap%70/installations",
    "/app%2finstallations",
    "/app%2Finstallations",
    "/app%252finstallations",
    "%2fapp",
    "/%2fapp",
    "/%2Fapp%2F",
    "/%u0061pp",
    "/%uff41pp",
    "/app%u002finstallations",
    "/app%3fx",
    "/app%23x",
    "/app%253fx",
    # slashes
    "//app",
    "///app//installations",
    "/app//installations",
    r"\app",
    r"/\app",
    r"/app\installations",
    "/%5capp",
    "/app%5cinstallations",
    "/%c0%afapp",
    "/app%c0%afinstallations",
    "/app%c1%9cinstallations",
    "/app%e0%80%afinstallations",
    "/app%f0%80%80%afinstallations",
    "/app%f8%80%80%80%afinstallations",
    "/app%fc%80%80%80%80%afinstallations",
    "/%c1%a1pp",
    # an authority where none is expected
    "//example.com/app",
    r"/\example.com/app",
    "http://example.com/app",
    "/.//example.com/app",
    # dot segments
    "/./app",
    "/../app",
    "/.../app",
    "/x/../app",
    "/v1/../app",
    "/x/y/../../app",
    "/%2e/app",
    "/%2e%2e/app",
    "/x/%2e%2e/app",
    "/x/.%2e/app",
    "/x/%252e%252e/app",
    "/..%2fapp",
    "/x/..%2fapp",
    "/x%2f..%2fapp",
    r"/x/..\app",
    "/x/..;/app",
    "/x/..;a=b/app",
    "/x/..%3b/app",
    "/x/..%00/app",
    "/x/%c0%ae%c0%ae/app",
    "/x/\uff0e\uff0e/app",
    "/x/\u2025/app",
    # the number of segments that `..` takes away is a matter of opinion
    "/x%2fy/../app",
    "/x%2fy/%2e%2e/app",
    r"/x\y/../app",
    "/x//../app",
    # read as app by those who leave dots alone
    "/app/../projects",
    "/app/%2e%2e/projects",
    "/app/..;/projects",
    "/app/./../projects",
    "/app/x/../../projects",
    "/app%2f..%2fprojects",
    # parameters
    "/app;x=1",
    "/app;x=1/y",
    "/;x/app",
    "/app%3bx=1/y",
    "/app;/installations",
    # fragments, cut or not
    "/x#/../app",
    "/#/app",
    "/x%23/../app",
    "/x%3f/../app",
    # NUL, white space, invisible characters, broken bytes: dropped, or the end of the name
    "/app%00",
    "/app%00.json",
    "/a%00pp",
    "/app%20",
    "/%20app",
    "/app%09",
    "/app%0d%0ax",
    "/\tapp",
    "/app%c2%a0",
    "/a%e2%80%8bpp",
    "/app%ff",
    "/a%c0%afpp",
    "/app%c3%a9",
    "/\uff41%c0%afpp",
    "/%ef%bd%81app",
    "/app\udcff",
    "/\udcffapp",
    "/app\ud800",
    "/%ud800app",
    "/app.",
    "/app./installations",
    # letters that fold to those of app
    "/\uff41\uff50\uff50",
    "/\uff21\uff30\uff30/installations",
    "/%ef%bd%81pp",
    "/\uff41\uff50\uff50".encode().decode("latin-1"),
    "/\uff41\uff50\uff50".encode().decode("ascii", "surrogateescape"),
    "/\u24d0pp",
    "/%2561\uff50p",
    "/\uff0561pp",
    "/app\uff0finstallations",
    "/app\xc0\xafinstallations",
    # versions
    "/v1/app/installations",
    "/v0.5/app/installations",
    "/v0/app",
    "/v99/app/x",
    "/V1/App",
    "/v1-beta/app",
    "/v1/v0.5/app",
    "/v1//app",
    "/v1/%61pp",
    "/%76%31/app",
]

INNOCENTS = [
    "",
    "/",
    "*",
    "?",
    "#",
    "/?/app",
    "/apps",
    "/apps/installations",
    "/application",
    "/app-x",
    "/app.json",
    "/app1",
    "/ap",
    "/ap/p",
    "/%61pps",
    "/xapp",
    "/whoami",
    "/organizations/app",
    "/organizations/app/inventory",
    "/organizations/1/app",
    "/projects/app",
    "/projects/app/",
    "/projects/%61pp",
    "/projects/app?x=/../app",
    "/projects?x=/app",
    "/projects?x=//app",
    "/projects?x=%2e%2e/app",
    "/projects/foo%20bar",
    "/projects/ICR%2F1",
    "/projects/caf%c3%a9",
    "/projects/x/..",
    "//organizations/1/inventory",
    "/organizations/1//inventory",
    "/projects/app/..",
    "/v1/projects/app",
    "/v0.5/organizations/app",
    "/v0/public/projects",
    "/version1/app",
    "/v/app",
    "/projects/v1/app",
    "/x;y/app",
    "/x%2fapp",
]


@pytest.mark.parametrize("target", DISGUISES, ids=ascii)
def test_app_is_seen_through_every_disguise(target: str) -> None:
    assert paths.is_app_path(target)


@pytest.mark.parametrize("target", INNOCENTS, ids=ascii)
def test_what_only_looks_like_app_is_not_app(target: str) -> None:
    assert not paths.is_app_path(target)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        pytest.param("", "/", id="nothing"),
        pytest.param("/", "/", id="root"),
        pytest.param("/?x", "/", id="root-and-query"),
        pytest.param("//", "/", id="two-slashes"),
        pytest.param("*", "/*", id="asterisk-form"),
        pytest.param("/..", "/", id="above-root"),
        pytest.param("/../../x", "/x", id="above-root-and-down"),
        pytest.param("/...", "/", id="three-dots"),
        pytest.param("/x%", "/x%", id="lone-percent"),
        pytest.param("/x%zz", "/x%zz", id="not-hexadecimal"),
        pytest.param("/x\ud800", "/x", id="lone-surrogate"),
        pytest.param("/x%" + "25" * 12 + "41", paths.HOSTILE, id="encoded-without-end"),
        pytest.param(_nested("/%61", times=9), paths.HOSTILE, id="nested-without-end"),
        pytest.param(_nested("/%78", times=3), "/x", id="nested"),
        pytest.param("/" + _encoded("x", times=5), "/x", id="fifth-encoding"),
        pytest.param("/v0.5/organizations/A", "/v0.5/organizations/a", id="dot-in-a-name"),
        pytest.param("/projects/", "/projects", id="trailing-slash"),
        pytest.param("/projects//x", "/projects/x", id="slash-twice"),
        pytest.param("/projects?a=../b#c", "/projects", id="query"),
        pytest.param("/projects%20?a", "/projects", id="disguise-and-query"),
        pytest.param("/projects#c?d", "/projects", id="fragment"),
        pytest.param("/a/./b/../c", "/a/c", id="dots"),
        pytest.param("/a/%2e%2e%2fb", "/b", id="encoded-dots"),
        pytest.param("/a/..;x/b", "/b", id="dots-with-parameters"),
        pytest.param("/a;x=1/b;y", "/a/b", id="parameters"),
        pytest.param("/v1/retire%3fx/y", "/v1/retire/y", id="encoded-question-mark"),
        pytest.param("/projects%3f/../v1/retire", "/v1/retire", id="encoded-question-mark-climbs"),
        pytest.param(r"/a\b%5cc", "/a/b/c", id="backslash"),
        pytest.param("/a%c0%afb", "/a/b", id="overlong-slash"),
        pytest.param("/%ef%bd%96%31/Retire", "/v1/retire", id="full-width"),
        pytest.param("/v1/re%00tire%20", "/v1/retire", id="junk"),
        pytest.param("/v1/retire%ff", "/v1/retire", id="broken-byte"),
        pytest.param("/v1/retire.", "/v1/retire", id="trailing-dot"),
        pytest.param("/caf%C3%89", "/café", id="letters-of-others"),
    ],
)
def test_decision_path_takes_every_disguise_off(target: str, path: str) -> None:
    assert paths.decision_path(target) == path


@pytest.mark.parametrize(
    ("target", "plain"),
    [
        pytest.param("", False, id="nothing"),
        pytest.param("x", False, id="no-slash"),
        pytest.param("/", True, id="root"),
        pytest.param("/v0.5/organizations/A-1_b~/inventory/?x=%2e%2e//", True, id="ordinary"),
        pytest.param("/x?\n", True, id="anything-in-the-query"),
        pytest.param("/x\n", False, id="line-break"),
        pytest.param("/x//y", False, id="empty-segment"),
        pytest.param("/x/../y", False, id="dots"),
        pytest.param("/x/.y", False, id="hidden-file"),
        pytest.param("/x./y", False, id="dot-at-the-end"),
        pytest.param("/x;y", False, id="parameter"),
        pytest.param("/x%20y", False, id="escape"),
        pytest.param("/x#y", False, id="fragment"),
        pytest.param("/é", False, id="not-ascii"),
    ],
)
def test_plain_is_what_has_one_reading(target: str, *, plain: bool) -> None:
    assert paths.is_plain(target) is plain


# -- properties ---------------------------------------------------------------------------------

_ODDITIES = ["%", "%25", "%2e", "%2f", "..", ".", "/", "\\", ";", "?", "#", "%00", "\udcff", "\x81"]
_targets = st.lists(
    st.sampled_from(
        [*_ODDITIES, "%c0", "%af", "%u", "\uff41", "\uff15", "ß", "\u0301", "app", "v1"]
    )
    | st.text(max_size=4)
).map("".join)

_plain_segments = st.from_regex(r"[A-Za-z0-9_~-]{1,12}(\.[A-Za-z0-9]{1,3})?", fullmatch=True)
_plain_paths = st.lists(_plain_segments, min_size=1, max_size=6)

_SLASHES = ["/", "//", "\\", "%2f", "%5C", "%252f", "/./", "/%2e/", "/;x/", "%c0%af", "\uff0f"]


def _spellings(letter: str) -> list[str]:
    wide = chr(ord(letter) + 0xFEE0)
    return [
        letter,
        letter.upper(),
        wide,
        wide.upper(),
        *(_encoded(text, times=times) for text in (letter, wide) for times in (1, 2)),
        f"%u{ord(wide):04x}",
        f"{letter}%00",
        f"%e2%80%8b{letter}",
    ]


def _disguised(word: str) -> st.SearchStrategy[str]:
    return st.tuples(*(st.sampled_from(_spellings(letter)) for letter in word)).map("".join)


_slashes = st.sampled_from(_SLASHES)
_ways_in = st.sampled_from(["", "/..", "/x/..", "/v1", "/v0.5", "/x%2fy/%2e%2e", "/a/b/..;c/.%2e"])
_ways_on = st.sampled_from(["", "/", ";x", "?x", "#x", "%00", "%20", "/../projects", "/x/%2e%2e"])


@given(_targets)
@example("/%;41/x")
@example("/\xc3\xa9/%c3%83%c2%a9")
@example("/%%0061pp")
def test_decision_path_of_itself_gives_itself(target: str) -> None:
    path = paths.decision_path(target)

    assert paths.decision_path(path) == path


@given(_targets)
def test_a_decision_path_has_nothing_left_to_decide(target: str) -> None:
    path = paths.decision_path(target)

    assert path.startswith("/")
    assert path == "/" or "" not in path[1:].split("/")
    assert not {".", ".."}.intersection(path.split("/"))
    assert not set("\\;?# \x00").intersection(path)


@given(_targets)
def test_app_on_the_decision_path_is_always_app(target: str) -> None:
    path = paths.decision_path(target)

    assert paths.is_app_path(target) or path.split("/")[1] != "app"


@given(_ways_in, _slashes, _disguised("app"), _ways_on)
def test_app_is_seen_through_any_mixture_of_disguises(
    way_in: str, slash: str, app: str, way_on: str
) -> None:
    assert paths.is_app_path(f"{way_in}{slash}{app}{way_on}")


# What servers do to a path, each in an order of its own.
_SERVER_STEPS: list[Callable[[str], str]] = [
    lambda path: unquote(path, errors="ignore"),
    lambda path: unquote(path, errors="surrogateescape"),
    lambda path: re.sub("%2e", ".", path, flags=re.IGNORECASE),  # RFC 3986, 6.2.2.2
    lambda path: path.replace("\\", "/"),
    lambda path: re.sub("/+", "/", path),
    lambda path: re.sub(";[^/]*", "", path),
    lambda path: re.sub(r"^//[^/]*", "", path),
    lambda path: path.partition("?")[0],
    lambda path: path.partition("#")[0],
    lambda path: path.partition("\0")[0],
    lambda path: re.sub("[\0\t\r\n]", "", path),
    lambda path: unicodedata.normalize("NFKC", path),
    lambda path: path.encode("ascii", "ignore").decode(),
    posixpath.normpath,
    str.strip,
    str.lower,
]
_server_parts = st.sampled_from(
    [*_ODDITIES, *_SLASHES, *_spellings("a"), "pp", "app", "app", "/", "..", "/../", "x", "v1", " "]
)


@settings(max_examples=2000)
@given(
    st.lists(_server_parts, max_size=8).map(lambda parts: "/" + "".join(parts)),
    st.lists(st.sampled_from(_SERVER_STEPS), max_size=8),
)
def test_app_is_seen_before_any_server_sees_it(
    target: str, steps: list[Callable[[str], str]]
) -> None:
    path = functools.reduce(lambda path, step: step(path), steps, target.partition("?")[0])

    assert paths.is_app_path(target) or not re.match(r"/+app(?:/|\Z)", path)


@given(_plain_paths.filter(lambda names: names[0].lower() != "app" and names[0][0] not in "vV"))
def test_a_plain_path_elsewhere_is_never_app(names: list[str]) -> None:
    target = "/" + "/".join(names)

    assert paths.is_plain(target)
    assert not paths.is_app_path(target)


@given(_plain_paths, st.text(alphabet=string.printable))
def test_a_plain_path_is_decided_on_as_it_is(names: list[str], query: str) -> None:
    target = "/" + "/".join(names)

    assert paths.decision_path(f"{target}?{query}") == target.lower()


@given(_plain_paths)
def test_one_encoding_more_does_not_change_the_decision(names: list[str]) -> None:
    target = "/" + "/".join(_encoded(name, times=1) for name in names)

    assert paths.decision_path(target) == "/" + "/".join(names).lower()

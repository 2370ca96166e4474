import re
from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from icr_proxy.errors import InstallationInvalidError
from icr_proxy.http1.headers import Header, fields_of
from icr_proxy.policy.paths import is_app_path
from icr_proxy.policy.router import Selector, SelectorReader

BY_ID, BY_ORGANIZATION = "X-ICR-Installation-Id", "X-ICR-Organization-Id"
ALL = ("header", "path", "userinfo")
Make = Callable[[bytes], Header]

BROKEN = ["undefined", "null", "none", "nan", "NaN", "None", "UNDEFINED"]
REFUSALS = re.compile(
    rf"(the path prefix /~…|the header ({BY_ID}|{BY_ORGANIZATION})|the user part of the URL)"
    r" must hold the ID of one (installation|organization): 1 to 64 letters, digits, - or _"
    rf"|send the header ({BY_ID}|{BY_ORGANIZATION}|Authorization) exactly once"
    r"|the request names its installation in ways that differ"
    r"|this listener does not take the installation by header"
    r"|with a user part in the URL, it must be the installation ID and without a password"
)


def reader(*kinds: str) -> SelectorReader:
    return SelectorReader(installation=BY_ID, organization=BY_ORGANIZATION, kinds=kinds)


def by_id(value: bytes, *, name: bytes = BY_ID.encode()) -> Header:
    return name, value


def by_organization(value: bytes) -> Header:
    return BY_ORGANIZATION.encode(), value


def authorization(value: bytes) -> Header:
    return b"authorization", value


def basic(user: bytes, *, scheme: bytes = b"Basic") -> Header:
    return authorization(scheme + b" " + b64encode(user))


def read(
    *headers: Header, kinds: tuple[str, ...] = ALL, prefix: Selector | None = None
) -> Selector | None:
    return reader(*kinds).read(fields_of(headers), prefix=prefix)


def refusal(*headers: Header, kinds: tuple[str, ...] = ALL, prefix: Selector | None = None) -> str:
    with pytest.raises(InstallationInvalidError) as caught:
        read(*headers, kinds=kinds, prefix=prefix)
    return caught.value.detail


# -- by header ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        (by_id(b"in-1"), Selector(installation="in-1")),
        (by_id(b"in-1", name=b"x-icr-installation-id"), Selector(installation="in-1")),
        (by_id(b"in-1", name=b"X-ICR-INSTALLATION-ID"), Selector(installation="in-1")),
        (by_organization(b"org-1"), Selector(organization="org-1")),
        (by_id(b"in-1", name=b"X_ICR_Installation_Id"), None),
        (by_id(b"in-1", name=b"X-ICR-Installation-Id2"), None),
        ((b"Accept", b"in-1"), None),
    ],
    ids=["installation", "lower", "upper", "organization", "underscores", "longer", "other"],
)
def test_a_header_names_it(header: Header, tag: Selector | None) -> None:
    assert read(header) == tag


@pytest.mark.parametrize("make", [by_id, by_organization], ids=["installation", "organization"])
@pytest.mark.parametrize("value", ["", "a, b", "a,a", "a b", "a;b", "../a", "ä", *BROKEN], ids=repr)
def test_an_unreadable_header_is_refused(make: Make, value: str) -> None:
    assert " must hold the ID of one " in refusal(make(value.encode()))


@pytest.mark.parametrize("second", [b"in-1", b"in-2", b""], ids=["same", "other", "empty"])
@pytest.mark.parametrize(
    ("make", "name"), [(by_id, BY_ID), (by_organization, BY_ORGANIZATION)], ids=["id", "org"]
)
def test_a_repeated_header_is_refused(make: Make, name: str, second: bytes) -> None:
    assert refusal(make(b"in-1"), make(second)) == f"send the header {name} exactly once"


def test_no_tag_is_none() -> None:
    assert read() is None


@pytest.mark.parametrize("header", [basic(b"in-1:"), basic(b"x")], ids=["user", "broken user"])
def test_a_user_is_not_looked_at_where_it_names_nothing(header: Header) -> None:
    assert read(header, header, kinds=("path",)) is None


@pytest.mark.parametrize(
    "header",
    [by_id(b"in-1"), by_organization(b"org-1"), by_id(b"undefined")],
    ids=["installation", "organization", "broken"],
)
def test_a_header_that_is_not_accepted_is_refused_and_not_passed_over(header: Header) -> None:
    assert refusal(header, kinds=("path",)).startswith("this listener does not take")


# -- by path --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        ("/~in-1", "/"),
        ("/~in-1/", "/"),
        ("/~in-1?x", "/?x"),
        ("/~in-1?", "/?"),
        ("/~in-1/?a=/~in-2/", "/?a=/~in-2/"),
        ("/~in-1/projects?a=1&a=2#f", "/projects?a=1&a=2#f"),
        ("/~in-1#f", "/#f"),
        ("/%7Ein-1/x", "/x"),
        ("/%7ein-1/x", "/x"),
        ("/~in-1//x", "//x"),
        ("/~in-1/../x", "/../x"),
        ("/~in-1/a%2Fb/%e9/\udce9", "/a%2Fb/%e9/\udce9"),
        ("/~in-1/a\nb", "/a\nb"),
        ("/~in-1/~in-2/x", "/~in-2/x"),
        ("/~in-1/%7Ein-2", "/%7Ein-2"),
    ],
    ids=ascii,
)
def test_a_prefix_is_cut_off_and_the_rest_kept_byte_for_byte(target: str, rest: str) -> None:
    assert reader("path").cut(target) == (rest, Selector(installation="in-1"))


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "",
        "/projects",
        "/a/~in-1/x",
        "//~in-1/x",
        "/./~in-1/x",
        "/%2f~in-1/x",
        "/%257Ein-1/x",
        "~in-1/x",
        "*",
        "/?/~in-1/",
        "http://localhost/~in-1/x",
    ],
    ids=repr,
)
def test_what_is_no_prefix_is_left_alone(target: str) -> None:
    assert reader("path").cut(target) == (target, None)


@pytest.mark.parametrize("kinds", [(), ("header",), ("header", "userinfo")], ids=repr)
@pytest.mark.parametrize("target", ["/~in-1/x", "/~/x", "/~undefined"])
def test_a_prefix_is_a_path_where_it_is_not_accepted(kinds: tuple[str, ...], target: str) -> None:
    assert reader(*kinds).cut(target) == (target, None)


@pytest.mark.parametrize(
    "target",
    [
        "/~",
        "/~/x",
        "/~?in-1",
        "/%7E/x",
        "/~..",
        "/~../app",
        "/~a%2fb/x",
        "/~%69n-1/x",
        "/~a;b/x",
        "/~a\\b/x",
        "/~a b",
        "/~~a/x",
        "/~a:/x",
        "/~é/x",
        "/~\udcff/x",
        f"/~{'x' * 65}/x",
        *(f"/~{word}/x" for word in BROKEN),
    ],
    ids=ascii,
)
def test_a_prefix_without_an_id_is_refused(target: str) -> None:
    with pytest.raises(InstallationInvalidError) as caught:
        reader("path").cut(target)

    assert REFUSALS.fullmatch(caught.value.detail)


@pytest.mark.parametrize(
    "target",
    ["/~in-1/app", "/~in-1/%61pp", "/~in-1//app/x", "/~in-1/x/../app", "/~in-1/v1/APP?x"],
)
def test_a_prefix_hides_app_from_those_who_do_not_look_at_the_rest(target: str) -> None:
    rest, _ = reader("path").cut(target)

    assert is_app_path(rest)


def test_a_second_prefix_names_nobody() -> None:
    """Only the first was written by who set the base URL; what follows is the tool's own path."""
    rest, tag = reader("path").cut("/~in-1/~in-2/app")

    assert (rest, tag) == ("/~in-2/app", Selector(installation="in-1"))


# -- by the user part of the URL ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "installation"),
    [
        pytest.param(b"in-1:icrp_key", "in-1", id="with a key"),
        pytest.param(b"in-1:", "in-1", id="without"),
        pytest.param(b":icrp_key", None, id="a key alone is no tag"),
    ],
)
def test_beside_a_callers_key_the_user_is_the_installation(
    given: bytes, installation: str | None
) -> None:
    """The key was looked at before; here it is only in the way."""
    tags = SelectorReader(
        installation=BY_ID, organization="X-Org", kinds=["userinfo"], passwords=True
    )

    found = tags.read(fields_of([(b"Authorization", b"Basic " + b64encode(given))]), prefix=None)

    assert (found.installation if found else None) == installation


@pytest.mark.parametrize("given", [b":", b"a/b:icrp_key", b"in-1"])
def test_what_stands_beside_a_key_is_an_id_or_nothing(given: bytes) -> None:
    tags = SelectorReader(
        installation=BY_ID, organization="X-Org", kinds=["userinfo"], passwords=True
    )

    with pytest.raises(InstallationInvalidError, match="user part"):
        tags.read(fields_of([(b"Authorization", b"Basic " + b64encode(given))]), prefix=None)


@pytest.mark.parametrize("scheme", [b"Basic", b"basic", b"BASIC", b"Basic   "])
def test_the_user_part_of_a_url_names_it(scheme: bytes) -> None:
    assert read(basic(b"in-1:", scheme=scheme)) == Selector(installation="in-1")


@pytest.mark.parametrize(
    "header",
    [
        basic(b"in-1:secret"),
        basic(b"in-1::"),
        basic(b"in-1: "),
        basic(b"in-1"),
        basic(b""),
        basic(b":"),
        basic(b":in-1"),
        basic("ïn-1:".encode()),
        basic("ïn-1:".encode("latin-1")),
        basic(b"undefined:"),
        basic(b"in/1:"),
        basic(b"in-1\0:"),
        authorization(b"Basic"),
        authorization(b"Basic "),
        authorization(b"Basic in-1:"),
        authorization(b"Basic aW4tMTo"),
        authorization(b"Basic aW4tMTo=="),
        authorization(b"Basic =aW4tMTo="),
        authorization(b"Basic aW4t MTo="),
        authorization(b"Basic aW4tMTo=, Basic aW4tMTo="),
        authorization(b"Basic \xe9"),
        authorization(b"Basic\t!"),
    ],
    ids=repr,
)
def test_a_user_part_that_is_no_id_alone_is_refused(header: Header) -> None:
    assert REFUSALS.fullmatch(refusal(header))


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer crs_0123",
        b"Bearer basic aW4tMTo=",
        b'Digest username="basic aW4tMTo="',
        b"BasicAuth aW4tMTo=",
        b"Basic-2 aW4tMTo=",
        b"",
        b"aW4tMTo=",
    ],
    ids=repr,
)
def test_other_credentials_name_nobody(value: bytes) -> None:
    assert read(authorization(value)) is None


@pytest.mark.parametrize(
    "other",
    [basic(b"in-1:"), basic(b"in-2:"), authorization(b"Bearer x")],
    ids=["same", "other", "another scheme"],
)
def test_a_user_part_stands_alone(other: Header) -> None:
    told = {refusal(basic(b"in-1:"), other), refusal(other, basic(b"in-1:"))}

    assert told == {"send the header Authorization exactly once"}


# -- several --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "prefix"),
    [
        ((by_id(b"in-1"), basic(b"in-1:")), None),
        ((by_id(b"in-1"),), Selector(installation="in-1")),
        ((basic(b"in-1:"),), Selector(installation="in-1")),
        ((by_id(b"in-1"), basic(b"in-1:")), Selector(installation="in-1")),
        ((), Selector(installation="in-1")),
    ],
    ids=["header+user", "header+path", "user+path", "all", "path"],
)
def test_tags_that_agree_are_one(headers: tuple[Header, ...], prefix: Selector | None) -> None:
    assert read(*headers, prefix=prefix) == Selector(installation="in-1")


@pytest.mark.parametrize(
    ("headers", "prefix"),
    [
        ((by_id(b"in-1"), basic(b"in-2:")), None),
        ((by_id(b"in-1"),), Selector(installation="in-2")),
        ((by_id(b"in-1"),), Selector(installation="IN-1")),
        ((basic(b"in-1:"),), Selector(installation="in-2")),
        ((by_id(b"in-1"), by_organization(b"org-1")), None),
        ((by_id(b"in-1"), by_organization(b"in-1")), None),
        ((by_organization(b"org-1"),), Selector(installation="in-1")),
    ],
    ids=["header+user", "header+path", "case", "user+path", "org", "org same text", "org+path"],
)
def test_tags_that_differ_are_refused(headers: tuple[Header, ...], prefix: Selector | None) -> None:
    told = refusal(*headers, prefix=prefix)

    assert told == "the request names its installation in ways that differ"


@pytest.mark.parametrize(
    "bad", [by_id(b"null"), by_organization(b""), basic(b"in-1:x")], ids=["id", "org", "user"]
)
def test_an_unreadable_tag_is_not_passed_over_for_a_good_one(bad: Header) -> None:
    assert REFUSALS.fullmatch(refusal(bad, prefix=Selector(installation="in-1")))


# -- whatever comes -------------------------------------------------------------------------------

NAMES = st.sampled_from([BY_ID.encode(), BY_ORGANIZATION.encode(), b"Authorization", b"Accept"])
VALUES = st.one_of(
    st.binary(max_size=80),
    st.from_regex(rb"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    st.binary(max_size=20).map(lambda user: b"Basic " + b64encode(user)),
    st.from_regex(rb"[A-Za-z0-9]{1,9}", fullmatch=True).map(
        lambda user: b"Basic " + b64encode(user + b":")
    ),
)


@given(headers=st.lists(st.tuples(NAMES, VALUES), max_size=3))
def test_headers_name_an_id_or_nobody_or_are_refused(headers: list[Header]) -> None:
    found = attempt(lambda: read(*headers))

    assert found is None or is_fit(found)


@given(target=st.one_of(st.text(), st.text().map("/~".__add__), st.text().map("/~a/".__add__)))
@example("/~\ud800")
def test_a_target_is_cut_or_left_alone_or_refused(target: str) -> None:
    found = attempt(lambda: reader("path").cut(target))

    assert (
        found == (target, None)
        or (isinstance(found, tuple) and is_fit(found[1]) and target.endswith(found[0].lstrip("/")))
        or is_fit(found)
    )


def attempt(act: Callable[[], object]) -> object:
    try:
        return act()
    except InstallationInvalidError as error:
        return error


def is_fit(found: object) -> bool:
    """Tell whether it is a tag with one ID, or a refusal in one of a few fixed sentences.

    No value can be in these.
    """
    if isinstance(found, InstallationInvalidError):
        return bool(REFUSALS.fullmatch(found.detail)) and found.__context__ is None
    if not isinstance(found, Selector):
        return False
    [name] = {found.installation, found.organization} - {None}
    return re.fullmatch("[A-Za-z0-9_-]{1,64}", str(name)) is not None

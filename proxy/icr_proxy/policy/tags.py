"""How a request names its installation: by header, by path prefix, by the user part of its URL.

A tag that is there but unreadable is refused and never passed over: the request would run on with
another credential than its sender meant.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.errors import InstallationInvalidError
from icr_proxy.http1.headers import is_basic, read_basic
from icr_proxy.identifiers import canonical_id, is_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

Header = tuple[bytes, bytes]

# `/~<id>/rest`; some clients escape the tilde (RFC 3986, 2.3 says that they need not).
PREFIX = re.compile(r"/(?:~|%7[Ee])([^/?#]*)(.*)", re.DOTALL)


class Tag(msgspec.Struct, frozen=True, gc=False):
    """What a request names: an installation, or an organization on which one is."""

    installation: str | None = None
    organization: str | None = None


class TagReader:
    """The tags that one listener accepts."""

    def __init__(
        self,
        *,
        installation: str,
        organization: str,
        kinds: Collection[str],
        passwords: bool = False,
    ) -> None:
        """Read tags of these `kinds` (`header`, `path`, `userinfo`); the headers' names come in.

        With `passwords`, there may be one beside the user: the caller's key, which was looked at.
        """
        self.header = installation
        self._installation = installation.lower().encode("ascii")
        self._organization = organization.lower().encode("ascii")
        self._organization_name = organization
        self._by_header = "header" in kinds
        self._by_path = "path" in kinds
        self._by_userinfo = "userinfo" in kinds
        self._passwords = passwords

    def cut(self, target: str) -> tuple[str, Tag | None]:
        """Cut the prefix off a target; the rest stays as it is, byte for byte.

        Raises:
            InstallationInvalidError: there is a prefix, and it holds no ID.
        """
        found = PREFIX.fullmatch(target) if self._by_path else None
        if found is None:
            return target, None
        text, rest = found.groups()
        identity = read_id(text.encode("utf-8", "surrogatepass"), where="the path prefix /~…")
        return rest if rest.startswith("/") else "/" + rest, Tag(installation=identity)

    def read(self, headers: Iterable[Header], *, prefix: Tag | None) -> Tag | None:
        """Give the one tag of a request, or `None` if it has none; `prefix` was cut off before.

        Raises:
            InstallationInvalidError: a tag is repeated, names nothing, or two disagree.
        """
        tags = set(self._tags(headers))
        if prefix is not None:
            tags.add(prefix)
        if len(tags) > 1:
            raise InstallationInvalidError("the request names its installation in ways that differ")
        return tags.pop() if tags else None

    def _tags(self, headers: Iterable[Header]) -> Iterator[Tag]:
        installations: list[bytes] = []
        organizations: list[bytes] = []
        credentials: list[bytes] = []
        for name, value in headers:
            lower = name.lower()
            if lower == self._installation:
                installations.append(value)
            elif lower == self._organization:
                organizations.append(value)
            elif lower == b"authorization":
                credentials.append(value)
        if installations or organizations:
            yield from self._named(installations, organizations)
        if self._by_userinfo and any(map(is_basic, credentials)):
            for value in _at_most_one(credentials, name="Authorization"):
                yield from self._in_user_part(value)

    def _in_user_part(self, value: bytes) -> Iterator[Tag]:
        user, password = read_basic(value) or (b"", b"")
        if password and not self._passwords:
            user = b""  # a caller with a key has come to a listener that asks for none
        elif password and not user:
            return  # nothing but the key; another tag, or the listener, tells the installation
        if not user:
            raise InstallationInvalidError(
                "with a user part in the URL, it must be the installation ID"
                + (" and the key" if self._passwords else " and without a password")
            )
        yield Tag(installation=read_id(user, where="the user part of the URL"))

    def _named(self, installations: list[bytes], organizations: list[bytes]) -> Iterator[Tag]:
        if not self._by_header:
            # Passed over, it would run on with the installation of the listener.
            raise InstallationInvalidError("this listener does not take the installation by header")
        for value in _at_most_one(installations, name=self.header):
            yield Tag(installation=read_id(value, where=f"the header {self.header}"))
        for value in _at_most_one(organizations, name=self._organization_name):
            where = f"the header {self._organization_name}"
            yield Tag(organization=read_id(value, where=where, what="organization"))


def read_id(value: bytes, *, where: str, what: str = "installation") -> str:
    """Give an ID that is fit for a path, in its one spelling.

    Raises:
        InstallationInvalidError: it is not; the value itself is never repeated.
    """
    if not is_id(value):
        raise InstallationInvalidError(
            f"{where} must hold the ID of one {what}: 1 to 64 letters, digits, - or _"
        )
    return canonical_id(value.decode("ascii"))


def _at_most_one(values: list[bytes], *, name: str) -> list[bytes]:
    if len(values) > 1:
        raise InstallationInvalidError(f"send the header {name} exactly once")
    return values

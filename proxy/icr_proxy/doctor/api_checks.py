"""Checks of what the API says: clock, signature, installations, and a token for each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.credentials.app_client import LIFETIME_SECONDS, SUCCESS
from icr_proxy.doctor.findings import DoctorFinding
from icr_proxy.errors import AppKeyRefusedError, InstallationRefusedError, MintError, UpstreamError
from icr_proxy.identifiers import TokenKey, is_id
from icr_proxy.redaction import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from icr_proxy.credentials.access_token import AccessToken
    from icr_proxy.doctor.findings import Case

SKEW_WARN_SECONDS = 30
# A JWT may end 600 s ahead by the API's clock (D), and ours ends LIFETIME_SECONDS ahead by our own.
AHEAD_MOST_SECONDS = 600 - LIFETIME_SECONDS
# Our JWT has expired before it arrives.
BEHIND_MOST_SECONDS = LIFETIME_SECONDS
KEY_REMEDY = (
    "compare app.id and the key's fingerprint with the app's page in the registry:"
    " the key may belong to another app or environment (production, sandbox), or be deleted"
)
VERSION_REMEDY = "set upstream.api_version to a version that the API's documentation names"


async def clock(case: Case) -> AsyncIterator[DoctorFinding]:
    """Compare the clocks."""
    try:
        skew = await case.session.measure_skew()
    except UpstreamError as error:
        remedy = "look at what answers at upstream.base_url: is it the API?"
        yield DoctorFinding("clock", "fail", error.detail, remedy)
        return
    if skew is None:
        yield DoctorFinding("clock", "warn", "the API's answer has no date, so nothing can be said")
        return
    yield judge_skew(skew)


def judge_skew(skew: float) -> DoctorFinding:
    """Say what a difference of clocks means; `skew` is the API's minus ours."""
    if skew == 0:
        return DoctorFinding("clock", "ok", "agrees with the API's to the second")
    detail = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the API's"
    if abs(skew) <= SKEW_WARN_SECONDS:
        return DoctorFinding("clock", "ok", detail)
    remedy = "set this machine's clock and keep it right (NTP)"
    if -AHEAD_MOST_SECONDS <= skew < BEHIND_MOST_SECONDS:
        return DoctorFinding("clock", "warn", detail, remedy)
    return DoctorFinding(
        "clock",
        "fail",
        f"{detail}: what is signed by it is refused; icr-proxy corrects itself by the API's"
        " clock, and so do the steps below",
        remedy,
    )


async def signature(case: Case) -> AsyncIterator[DoctorFinding]:
    """Ask for the installations, which needs an App JWT that the API accepts."""
    try:
        case.listed = await case.session.list_installations()
    except AppKeyRefusedError:
        yield DoctorFinding("app JWT", "fail", "the API refuses the app's signature", KEY_REMEDY)
    except MintError as error:
        case.is_bad_request = error.reason == "status-4xx"
        remedy = "ask again later; if it stays so, look at what answers at upstream.base_url"
        yield DoctorFinding(
            "app JWT", "fail", error.detail, VERSION_REMEDY if case.is_bad_request else remedy
        )
    else:
        yield DoctorFinding(
            "app JWT", "ok", f"the API takes the signature of app {case.config.app.id}"
        )


async def installations(case: Case) -> AsyncIterator[DoctorFinding]:
    """Say how many there are; the command `installations` lists them."""
    count = len(case.listed)
    if count:
        yield DoctorFinding("installations", "ok", f"{count} active")
        return
    yield DoctorFinding(
        "installations",
        "warn",
        "the app is installed on no organization, so no request can be served",
        "have an administrator of an organization install the app",
    )


MOST = 20
MANDATORY = "organization_info"  # each installation has it (D)
BAD_REQUEST = 400
TOKEN_REFUSED = (401, 403)


async def tokens(case: Case) -> AsyncIterator[DoctorFinding]:
    """Make a token for each installation, and say what it may do."""
    chosen = choose(case)
    shown = chosen if case.everyone else chosen[:MOST]
    for installation in shown:
        yield await _mint(case, installation)
        if installation in case.minted:
            yield judge_permissions(case.minted[installation])
    left = len(chosen) - len(shown)
    if left:
        yield DoctorFinding(
            "token", "skip", f"{left} more installations were not tried; --all does"
        )


def choose(case: Case) -> list[str]:
    """Give the installations to try, first those that requests get without naming one."""
    if case.installation is not None:
        return [case.installation]
    defaults = [each.installation for each in case.config.listeners if each.installation]
    return list(dict.fromkeys([*defaults, *(each.id for each in case.listed)]))


async def _mint(case: Case, installation: str) -> DoctorFinding:
    named = next((each.organization_name for each in case.listed if each.id == installation), "")
    who = f"{named} ({installation})" if named else installation
    try:
        token = await case.session.exchange.mint(TokenKey(installation))
    except InstallationRefusedError:
        remedy = "check the ID; look in the registry whether the installation is suspended or gone"
        return DoctorFinding("token", "fail", f"{who}: the API issues none for it", remedy)
    except AppKeyRefusedError as error:
        return DoctorFinding("token", "fail", f"{who}: {error.detail}", KEY_REMEDY)
    except MintError as error:
        return DoctorFinding("token", "fail", f"{who}: {error.detail}", "ask again later")
    case.minted[installation] = token
    minutes = (token.expires_at - token.minted_at) / 60
    return DoctorFinding("token", "ok", f"{who}: good for {minutes:.0f} minutes")


def judge_permissions(token: AccessToken) -> DoctorFinding:
    """Show what was granted."""
    levels = (f"{name} {level}" for name, level in sorted(token.permissions.items()))
    granted = printable(", ".join(levels))[:500]
    if MANDATORY in token.permissions:
        return DoctorFinding("permissions", "ok", granted)
    return DoctorFinding(
        "permissions",
        "warn",
        f"{granted or 'none'}; {MANDATORY} is missing, which each installation has",
        "look at the app's permissions in the registry, and have new ones accepted",
    )


async def version(case: Case) -> AsyncIterator[DoctorFinding]:
    """Read one organization with its token and our version header."""
    usable = [token for token in case.minted.values() if token.organization]
    asked = case.config.upstream.api_version
    organization = usable[0].organization if usable else None
    if case.is_bad_request:  # what an unsupported version gets (D-old)
        detail = f"{asked} seems unsupported: the API takes our own calls for bad requests"
        yield DoctorFinding("API version", "fail", detail, VERSION_REMEDY)
        return
    if organization is None or not is_id(organization.encode()):
        yield DoctorFinding("API version", "skip", f"{asked} not tried: no token to try it with")
        return
    target = f"/organizations/{organization}"
    try:
        status = await case.session.read_as_installation(
            target.encode("ascii"), authorization=authorization(usable[0])
        )
    except UpstreamError as error:
        yield DoctorFinding(
            "API version", "fail", f"GET {target}: {error.detail}", "ask again later"
        )
    else:
        yield judge_version(status, asked=asked, target=target)


def judge_version(status: int, *, asked: str, target: str) -> DoctorFinding:
    """Say what the answer to a harmless read means."""
    answered = f"GET {target} was answered with {status}"
    if status in SUCCESS:
        return DoctorFinding("API version", "ok", f"{asked} is accepted: {answered}")
    if status == BAD_REQUEST:  # what an unsupported version gets (D-old)
        detail = f"{asked} seems unsupported: {answered}"
        return DoctorFinding("API version", "fail", detail, VERSION_REMEDY)
    if status in TOKEN_REFUSED:
        remedy = f"look at the installation's permissions in the registry, {MANDATORY} above all"
        return DoctorFinding("API version", "fail", f"the token is refused: {answered}", remedy)
    return DoctorFinding(
        "API version", "warn", f"{asked} not known to be accepted: {answered}", "ask again later"
    )


async def revoke(case: Case) -> AsyncIterator[DoctorFinding]:
    """Leave nothing behind: each token is deleted by itself; a refused one is dead already (A)."""
    if not case.minted:
        return
    left = 0
    for token in case.minted.values():
        try:
            status = await case.session.revoke(authorization(token))
        except UpstreamError:
            status = 0
        left += status not in (*SUCCESS, *TOKEN_REFUSED)
    count = len(case.minted)
    case.minted.clear()
    if left:
        yield DoctorFinding(
            "clean-up",
            "warn",
            f"{left} of {count_of(count)} made here not revoked",
            "nothing need be done: they expire by themselves within two hours",
        )
    else:
        yield DoctorFinding("clean-up", "ok", f"revoked what was made here, {count_of(count)}")


def authorization(token: AccessToken) -> bytes:
    """Give the header value that carries a token."""
    return b"Bearer " + token.secret.reveal().encode("ascii")


def count_of(tokens: int) -> str:
    """Say how many."""
    return "1 token" if tokens == 1 else f"{tokens} tokens"

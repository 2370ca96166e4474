"""What the API says: its clock, whether it takes our signature, which installations it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.credentials.app_client import LIFETIME_SECONDS
from icr_proxy.doctor.findings import Finding
from icr_proxy.errors import AppKeyRefusedError, MintError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from icr_proxy.doctor.case import Case

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


async def clock(case: Case) -> AsyncIterator[Finding]:
    """Compare the clocks."""
    try:
        skew = await case.session.measure_skew()
    except UpstreamError as error:
        remedy = "look at what answers at upstream.base_url: is it the API?"
        yield Finding("clock", "fail", error.detail, remedy)
        return
    if skew is None:
        yield Finding("clock", "warn", "the API's answer has no date, so nothing can be said")
        return
    yield judge_skew(skew)


def judge_skew(skew: float) -> Finding:
    """Say what a difference of clocks means; `skew` is the API's minus ours."""
    if skew == 0:
        return Finding("clock", "ok", "agrees with the API's to the second")
    detail = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the API's"
    if abs(skew) <= SKEW_WARN_SECONDS:
        return Finding("clock", "ok", detail)
    remedy = "set this machine's clock and keep it right (NTP)"
    if -AHEAD_MOST_SECONDS <= skew < BEHIND_MOST_SECONDS:
        return Finding("clock", "warn", detail, remedy)
    return Finding(
        "clock",
        "fail",
        f"{detail}: what is signed by it is refused; icr-proxy corrects itself by the API's"
        " clock, and so do the steps below",
        remedy,
    )


async def signature(case: Case) -> AsyncIterator[Finding]:
    """Ask for the installations, which needs an App JWT that the API accepts."""
    try:
        case.listed = await case.session.list_installations()
    except AppKeyRefusedError:
        yield Finding("app JWT", "fail", "the API refuses the app's signature", KEY_REMEDY)
    except MintError as error:
        case.is_bad_request = error.reason == "status-4xx"
        remedy = "ask again later; if it stays so, look at what answers at upstream.base_url"
        yield Finding(
            "app JWT", "fail", error.detail, VERSION_REMEDY if case.is_bad_request else remedy
        )
    else:
        yield Finding("app JWT", "ok", f"the API takes the signature of app {case.config.app.id}")


async def installations(case: Case) -> AsyncIterator[Finding]:
    """Say how many there are; the command `installations` lists them."""
    count = len(case.listed)
    if count:
        yield Finding("installations", "ok", f"{count} active")
        return
    yield Finding(
        "installations",
        "warn",
        "the app is installed on no organization, so no request can be served",
        "have an administrator of an organization install the app",
    )

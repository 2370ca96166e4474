"""Debian's Chromium, driven by Playwright: for checks that want a real browser.

Playwright's own browsers are not used (they are downloaded from elsewhere); what is missing fails
loudly, because a check that is skipped in silence proves nothing.
"""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Nothing but what the page does: no updates, no look-ups of its own.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def executable() -> str:
    """Find the browser; `CHROMIUM` names one that is elsewhere."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise FileNotFoundError("no Chromium here: apt-get install chromium, or set CHROMIUM")
    return found


@asynccontextmanager
async def chromium(*options: str, names: str = "") -> AsyncIterator[Browser]:
    """Start a browser for which all of `names` (as in `*.test`) mean this machine."""
    rules = [f"--host-resolver-rules=MAP {names} 127.0.0.1"] if names else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable(), args=[*OPTIONS, *rules, *options]
        )
        try:
            yield browser
        finally:
            await browser.close()

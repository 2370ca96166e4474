"""Fixtures, each two lines and named by what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import EmulatorSettings
from tests.support.app_fixture import RunningProxy, app_key_pem, proxy_before
from tests.support.clients.process_clients import CLIENTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(EmulatorSettings(), private_keys=[app_key_pem()]) as running:
        yield running


@pytest.fixture
async def proxy(emulator: Emulator) -> AsyncIterator[RunningProxy]:
    async with proxy_before(emulator) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which of the programs in the stories were found on this machine."""
    found = [client.name for client in CLIENTS if client.is_there()]
    terminalreporter.write_line(f"Client programs run in the stories: {', '.join(found) or 'none'}")

"""Fixtures, each two lines and named by what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy.emulator.server import Emulator
from proxy.emulator.settings import EmulatorSettings
from tests.scenes import RunningProxy, app_key_pem, proxy_before

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

"""What every test of the emulator starts from."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from icr_proxy.emulator.registry.credentials import new_private_key
from icr_proxy.emulator.server import Emulator
from tests.support.emulator_client import NOW, Client, HandClock


@pytest.fixture(scope="session")
def private_key() -> str:
    return new_private_key()


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOW)


@pytest_asyncio.fixture
async def emulator(private_key: str, clock: HandClock) -> AsyncIterator[Emulator]:
    async with Emulator(now=clock, private_keys=[private_key]) as running:
        yield running


@pytest_asyncio.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(emulator.base_url) as session:
        yield Client(session, emulator=emulator)

"""Real clients, in Python and as programs, each doing the same eight things through the proxy."""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.app_fixture import TAG
from tests.support.clients.process_clients import CLIENTS, ProcessClient
from tests.support.clients.python_clients import (
    with_aiohttp,
    with_httpx,
    with_requests,
    with_urllib,
)
from tests.support.clients.tasks import TASKS, Task, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator
    from tests.support.app_fixture import RunningProxy

# `.ci/run` installs every client and wants none left out; `make test` takes those it finds.
ALL_REQUIRED = os.environ.get("ICR_TEST_ALL_CLIENTS") == "1"
PYTHON = {
    "requests": with_requests,
    "httpx": with_httpx,
    "urllib": with_urllib,
    "aiohttp": with_aiohttp,
}
PROCESS_CASES = [
    pytest.param(client, task, id=f"{client.name}-{task.name}")
    for client in CLIENTS
    for task in TASKS
    if task.name not in client.cannot
]


@pytest.fixture
def retirement(emulator: Emulator) -> str:
    """Give the id of a retirement of the first organization."""
    return next(iter(emulator.world.retirements))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("client", PYTHON.values(), ids=PYTHON)
async def test_python_client(
    client: Any, task: Task, proxy: RunningProxy, emulator: Emulator, retirement: str
) -> None:
    errand = prepare(task, proxy=proxy, emulator=emulator, retirement=retirement)

    if inspect.iscoroutinefunction(client):
        reply = await client(errand)
    else:
        reply = await asyncio.to_thread(client, errand)

    task.check(reply)
    assert_credentials_were_right(emulator)


@pytest.mark.parametrize(("client", "task"), PROCESS_CASES)
async def test_program(  # noqa: PLR0917  # fixtures are passed by name
    client: ProcessClient,
    task: Task,
    proxy: RunningProxy,
    emulator: Emulator,
    retirement: str,
    tmp_path: Path,
) -> None:
    if not client.is_there():
        assert not ALL_REQUIRED, f"{client.name} is not installed"
        pytest.skip(f"{client.name} is not installed here; .ci/run has it")
    errand = prepare(task, proxy=proxy, emulator=emulator, retirement=retirement)

    reply = await client.run(errand, tmp_path)

    task.check(reply)
    assert_credentials_were_right(emulator)


def assert_credentials_were_right(emulator: Emulator) -> None:
    seen = emulator.world.requests[-1]
    assert seen.installation_id == next(iter(emulator.world.installations))
    assert len(seen.values("authorization")) == 1
    assert seen.values("x-icr-api-version") == ["2023-06-16"]
    assert seen.values(TAG) == []

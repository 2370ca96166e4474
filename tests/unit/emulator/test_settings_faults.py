"""What is ordered to go wrong goes wrong, once each, and where it was ordered."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import KINDS, EmulatorSettings, Fault
from tests.support.emulator_client import Client

MINT = "/app/accessTokens"


async def test_status_fault_has_the_shape_of_an_error(client: Client) -> None:
    fault = Fault(kind="status", status=503, headers={"Retry-After": "2"})
    client.emulator.world.faults.mints.append(fault)

    failed = await client.ask("POST", MINT, bearer=client.sign())
    worked = await client.ask("POST", MINT, bearer=client.sign())

    assert (failed.status, failed.headers["Retry-After"]) == (503, "2")
    assert failed.json["error"] == "Service Unavailable"
    assert worked.status == 200
    assert client.emulator.world.mints == {"app": 1}
    assert client.emulator.world.mint_attempts == {"app": 2}


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        pytest.param(Fault(kind="status", status=200), 200, b"{}", id="status 200"),
        pytest.param(Fault(kind="status", body="{}", status=418), 418, b"{}", id="text"),
        pytest.param(Fault(kind="status", body=b"\xff"), 503, b"\xff", id="bytes"),
        pytest.param(Fault(kind="empty"), 200, b"", id="empty"),
    ],
)
async def test_fault_answers_as_ordered(
    client: Client, fault: Fault, status: int, body: bytes
) -> None:
    client.emulator.world.faults.mints.append(fault)

    reply = await client.ask("POST", MINT, bearer=client.sign())

    assert (reply.status, reply.body) == (status, body)


async def test_content_type_of_a_fault_can_be_chosen(client: Client) -> None:
    fault = Fault(kind="status", status=502, body="<html>", headers={"content-type": "text/html"})
    client.emulator.world.faults.requests.append(fault)

    reply = await client.ask("GET", "/projects")

    assert reply.headers.getall("Content-Type") == ["text/html"]


async def test_malformed_answer_is_broken_json(client: Client) -> None:
    client.emulator.world.faults.mints.append(Fault(kind="malformed"))

    reply = await client.ask("POST", MINT, bearer=client.sign())

    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.body)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("reset", aiohttp.ClientConnectionError),
        ("truncated", aiohttp.ClientPayloadError),
        ("hang", aiohttp.ClientConnectionError),
    ],
)
async def test_connection_breaks(client: Client, kind: Any, error: type[Exception]) -> None:
    client.emulator.world.faults.requests.append(Fault(kind=kind, seconds=0.01))

    with pytest.raises(error):
        await client.ask("POST", "/v1/retire", bearer="x")

    assert client.emulator.world.requests[-1].status == 0
    assert client.emulator.world.requests[-1].fault == kind


async def test_slow_call_goes_on_as_if_nothing_had_been(client: Client) -> None:
    client.emulator.world.faults.mints.append(Fault(kind="slow", seconds=0.05))
    started = time.monotonic()

    reply = await client.ask("POST", MINT, bearer=client.sign())

    assert reply.status == 200
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize(
    ("when", "tokens", "read"), [("head", 0, False), ("before", 0, True), ("after", 1, True)]
)
async def test_fault_strikes_when_ordered(
    client: Client,
    when: Any,
    tokens: int,
    read: bool,  # noqa: FBT001
) -> None:
    client.emulator.world.faults.mints.append(Fault(kind="status", when=when))

    reply = await client.ask("POST", MINT, bearer=client.sign(), json={})

    assert reply.status == 503
    assert len(client.emulator.world.tokens) == tokens
    assert client.emulator.world.requests[-1].body_complete is read


async def test_queues_are_consumed_by_their_own_calls(client: Client) -> None:
    faults, token = client.emulator.world.faults, await client.mint()
    for queue in faults.queues().values():
        queue.append(Fault(kind="status", status=500))

    statuses = [
        (await client.ask("GET", "/_emulator/state")).status,
        (await client.ask("GET", "/app/installations", bearer=client.sign())).status,
        (await client.ask("POST", MINT, bearer=client.sign())).status,
        (await client.ask("GET", "/_emulator/echo", bearer=token)).status,
    ]

    assert statuses == [200, 500, 500, 500]
    assert not any(faults.queues().values())


def test_every_kind_of_fault_is_listed() -> None:
    assert sorted(KINDS) == sorted(Fault.__annotations__["kind"].__args__)


async def test_hanging_call_is_seen_and_ends_with_the_emulator(private_key: str) -> None:
    emulator = Emulator(private_keys=[private_key])
    await emulator.start()
    emulator.world.faults.requests.append(Fault(kind="hang"))
    async with aiohttp.ClientSession(emulator.base_url) as session, asyncio.TaskGroup() as group:
        call = group.create_task(fails(session))
        while not emulator.world.requests:  # noqa: ASYNC110 - nothing to wait on
            await asyncio.sleep(0)

        await emulator.stop()

        assert await call
    assert emulator.world.requests[-1].status == 0


async def fails(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.post("/v1/retire"):
            return False
    except aiohttp.ClientConnectionError:
        return True


async def test_latency_is_added_to_answers_but_not_to_the_control_api(private_key: str) -> None:
    settings = EmulatorSettings(latency=0.05)
    async with (
        Emulator(settings, private_keys=[private_key]) as emulator,
        aiohttp.ClientSession(emulator.base_url) as session,
    ):
        client = Client(session, emulator=emulator)
        started = time.monotonic()
        await client.ask("GET", "/_emulator/state")
        control = time.monotonic() - started

        await client.ask("GET", "/projects")

        assert time.monotonic() - started - control >= 0.05

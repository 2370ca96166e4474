"""The emulator starts, records, and stops."""

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from icr_proxy.emulator.registry.credentials import AppKeys, new_private_key, public_half
from icr_proxy.emulator.registry.entities import Account
from icr_proxy.emulator.server import Emulator
from icr_proxy.emulator.settings import EmulatorSettings, Fault
from tests.support.emulator_client import Client


def test_ids_are_the_same_on_every_start(private_key: str) -> None:
    first, second = (Emulator(private_keys=[private_key]) for _ in range(2))

    assert list(first.world.installations) == list(second.world.installations)
    assert list(first.world.batches) == list(second.world.batches)
    assert next(iter(first.world.installations)) == "eac56b38-f25a-579f-ac74-21e9ef416be8"


def test_address_is_known_only_while_it_listens(private_key: str) -> None:
    with pytest.raises(RuntimeError):
        _ = Emulator(private_keys=[private_key]).base_url


async def test_stopping_twice_is_harmless(private_key: str) -> None:
    emulator = Emulator(private_keys=[private_key])
    await emulator.start()
    await emulator.stop()

    await emulator.stop()


async def test_it_starts_again_after_a_stop(private_key: str) -> None:
    emulator = Emulator(private_keys=[private_key])
    async with emulator:
        pass

    async with emulator:
        assert emulator.base_url.startswith("http://127.0.0.1:")


async def test_it_listens_on_ipv6(private_key: str) -> None:
    async with Emulator(EmulatorSettings(host="::1"), private_keys=[private_key]) as emulator:
        assert emulator.base_url.startswith("http://[::1]:")


def test_a_key_is_generated_when_none_is_given() -> None:
    emulator = Emulator(EmulatorSettings(installations=1))

    assert emulator.private_key_pem.startswith("-----BEGIN PRIVATE KEY-----")
    assert len(emulator.world.keys.active) == 1
    assert emulator.settings.app_id == emulator.app_id


def test_all_given_keys_are_active_and_the_first_is_handed_out(private_key: str) -> None:
    emulator = Emulator(private_keys=[private_key, new_private_key()])

    assert emulator.private_key_pem == private_key
    assert len(emulator.world.keys.active) == 2


def test_public_and_private_pem_are_the_same_key(private_key: str) -> None:
    pem = public_half(private_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    keys = AppKeys(private_key)

    keys.add(pem.decode())

    assert len(keys.active) == 1


def test_key_of_another_kind_is_refused() -> None:
    key = generate_private_key(SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    for pem in (private, public):
        with pytest.raises(ValueError, match="not an RSA key"):
            public_half(pem.decode())


@pytest.mark.parametrize(
    "wrong",
    [
        {"mint_status": 500},
        {"invalid_token_status": 400},
        {"latency": -1},
        {"installations": -1},
        {"token_lifetime": 0},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EmulatorSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"status": 101}, {"seconds": -1.0}], ids=str)
def test_impossible_fault_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Fault(kind="status", **wrong)


def test_thousand_organizations_have_a_thousand_names(private_key: str) -> None:
    settings = EmulatorSettings(installations=1000, credits=0.5)

    world = Emulator(settings, private_keys=[private_key]).world

    names = {item.organization.full_name for item in world.installations.values()}
    serializations = {batch.serialization for batch in world.batches.values()}
    assert (len(names), len(serializations)) == (1000, 4000)


async def test_log_of_requests_is_bounded_and_its_count_is_not(private_key: str) -> None:
    settings = EmulatorSettings(request_log_size=2)
    async with Emulator(settings, private_keys=[private_key]) as emulator:
        _, writer = await asyncio.open_connection(*emulator.base_url[7:].split(":"))
        writer.write(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n" * 5)
        while emulator.world.traffic.statuses[404] < 5:  # noqa: ASYNC110 - nothing to wait on
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()

        assert (len(emulator.world.requests), emulator.world.traffic.total) == (2, 5)


async def test_requests_on_one_connection_have_one_port(client: Client) -> None:
    await client.ask("GET", "/x")
    await client.ask("GET", "/y")

    first, second = client.emulator.world.requests
    assert first.peer_port == second.peer_port > 0


async def test_credits_move_even_if_nobody_is_told(client: Client) -> None:
    token = await client.mint()
    owner = client.installation().organization.id
    world = client.emulator.world
    credit = next(iter(world.book.holdings(Account(owner, "inventory"))))
    body = {
        "fromId": owner,
        "reason": "Test",
        "beneficiaryName": "Nobody",
        "comment": "",
        "credit": {"id": credit, "amount": 1},
    }
    world.faults.requests.append(Fault(kind="status", status=502, when="after"))

    reply = await client.ask("POST", "/v1/retire", bearer=token, json=body)

    assert (reply.status, len(world.ledger)) == (502, 1)


async def test_concurrent_retirements_never_overdraw(client: Client) -> None:
    token = await client.mint()
    world = client.emulator.world
    added = world.add_installation(credits_each=10)
    token = world.token_book.issue(
        now=world.now(),
        lifetime=60,
        permissions=added.permissions,
        installation_id=added.id,
        organization_id=added.organization.id,
    ).token
    credit = next(iter(world.book.holdings(Account(added.organization.id, "inventory"))))
    body = {
        "fromId": added.organization.id,
        "reason": "Test",
        "beneficiaryName": "Nobody",
        "comment": "",
        "credit": {"id": credit, "amount": 1},
    }
    calls = (client.ask("POST", "/v1/retire", bearer=token, json=body) for _ in range(25))

    replies = await asyncio.gather(*calls)

    assert sorted(reply.status for reply in replies) == [200] * 10 + [400] * 15
    assert len(world.ledger) == 10
    assert world.book.totals() == dict(world.book.issued)

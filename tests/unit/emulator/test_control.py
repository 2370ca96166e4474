"""Everything that a test does in process can be done over HTTP."""

from typing import Any

import pytest

from icr_proxy.emulator.registry.credentials import new_private_key
from tests.support.emulator_client import NOW, Client

CONTROL = "/_emulator"


async def post(client: Client, path: str, body: object = None) -> Any:
    reply = await client.ask("POST", f"{CONTROL}/{path}", json={} if body is None else body)
    return reply.json


async def state(client: Client) -> Any:
    return (await client.ask("GET", f"{CONTROL}/state")).json


async def test_state_tells_what_a_test_needs(client: Client) -> None:
    await client.mint()

    told = await state(client)

    first = told["installations"][0]
    assert told["appId"] == client.emulator.app_id
    assert first["id"] == client.installation().id
    assert first["organizationId"] == client.installation().organization.id
    assert (first["mints"], first["liveTokens"], first["status"]) == (1, 1, "active")
    assert told["settings"]["invalid_token_status"] == 403
    assert told["ledger"]["issued"] == sum(told["ledger"]["stores"].values())
    assert told["requests"] == 1


async def test_requests_are_told_as_received_without_the_control_api(client: Client) -> None:
    token = await client.mint()
    headers = [("X-Odd", "1"), ("X-Odd", "2")]
    await client.ask("POST", "/_emulator/sink?a=%26", bearer=token, data=b"abc", headers=headers)

    told = await client.ask("GET", f"{CONTROL}/requests?limit=1")

    (seen,) = told.json["requests"]
    odd = [pair for pair in seen["headers"] if pair[0] == "X-Odd"]
    assert (seen["method"], seen["target"]) == ("POST", "/_emulator/sink?a=%26")
    assert odd == [["X-Odd", "1"], ["X-Odd", "2"]]
    assert (seen["bodyLength"], seen["bodyComplete"], seen["status"]) == (3, True, 200)
    assert seen["installationId"] == client.installation().id
    assert (await client.ask("GET", f"{CONTROL}/requests?limit=0")).json == {"requests": []}


async def test_ledger_is_told_with_totals(client: Client) -> None:
    batch = next(iter(client.emulator.world.batches.values()))
    body = {
        "fromId": client.installation().organization.id,
        "reason": "Test",
        "beneficiaryName": "Nobody",
        "comment": "",
        "credit": {"id": batch.id, "amount": 1.5},
    }
    await client.ask("POST", "/v1/retire", bearer=await client.mint(), json=body)

    told = (await client.ask("GET", f"{CONTROL}/ledger")).json

    assert told["totals"]["retirements"] == {"count": 1, "amount": 1.5}
    assert told["totals"]["transfers"] == {"count": 0, "amount": 0}
    assert told["entries"][0]["creditId"] == batch.id
    assert told["entries"][0]["from"] == client.installation().organization.id


async def test_installations_are_seeded(client: Client) -> None:
    many = await post(client, "installations", {"count": 2, "credits": 5})
    one = await post(
        client,
        "installations",
        {"installationId": "i", "organizationId": "o", "name": "N", "permissions": {}},
    )

    assert len(many["installations"]) == 2
    assert one["installations"] == [
        {
            "id": "i",
            "organizationId": "o",
            "organizationName": "N",
            "status": "active",
            "permissions": {},
        }
    ]


async def test_one_organization_may_have_two_installations(client: Client) -> None:
    organization = client.installation().organization.id
    before = (await state(client))["ledger"]["issued"]

    await post(client, "installations", {"installationId": "i", "organizationId": organization})

    assert (await state(client))["ledger"]["issued"] == before
    assert client.emulator.world.installations["i"].organization.id == organization


@pytest.mark.parametrize(
    ("action", "status"),
    [("suspend", "suspended"), ("unsuspend", "active"), ("uninstall", "uninstalled")],
)
async def test_installation_changes_its_status(client: Client, action: str, status: str) -> None:
    told = await post(client, f"installations/{client.installation().id}/{action}")

    assert told["status"] == status


async def test_tokens_are_revoked(client: Client) -> None:
    token = await client.mint()

    await post(client, f"installations/{client.installation().id}/revoke")

    assert token not in client.emulator.world.tokens


async def test_permissions_are_changed(client: Client) -> None:
    body = {"permissions": {"examiner": "VIEW"}}

    told = await post(client, f"installations/{client.installation().id}/permissions", body)

    assert told["permissions"] == {"examiner": "VIEW"}


async def test_clock_is_shifted_and_reset(client: Client) -> None:
    await post(client, "clock", {"shift": 60})
    shifted = await post(client, "clock", {"shift": 60})
    await post(client, "reset")

    told = await state(client)

    assert shifted == {"now": NOW + 120, "shift": 120}
    assert told["clock"]["shift"] == 0


async def test_faults_are_ordered_and_cleared(client: Client) -> None:
    body = {"target": "mints", "kind": "status", "count": 3, "headers": {"Retry-After": "1"}}
    ordered = await post(client, "faults", body)
    failed = await client.ask("POST", "/app/accessTokens", bearer=client.sign())

    cleared = await client.ask("DELETE", f"{CONTROL}/faults")

    assert ordered == {"mints": 3, "app": 0, "requests": 0}
    assert (failed.status, failed.headers["Retry-After"]) == (503, "1")
    assert cleared.status == 204
    assert not client.emulator.world.faults.mints


async def test_credit_request_is_approved(client: Client) -> None:
    batch = next(iter(client.emulator.world.batches.values()))
    target = f"/organizations/{client.installation().organization.id}/inventory/requests/transfer"
    body = {"creditId": batch.id, "amount": 1, "toAddress": "0x1"}
    made = await client.ask("POST", target, bearer=await client.mint(), json=body)

    approved = await post(client, f"requests/{made.json['id']}/approve")

    assert approved["state"] == "processed"
    assert len(client.emulator.world.ledger) == 1


async def test_switches_are_thrown(client: Client) -> None:
    told = await post(client, "settings", {"invalid_token_status": 401, "latency": 0.0})

    assert told["settings"]["invalid_token_status"] == 401
    assert (await client.ask("GET", "/projects")).status == 401


async def test_reset_returns_to_the_start(client: Client) -> None:
    before = await state(client)
    requests = client.emulator.world.requests
    await client.mint()
    await post(client, "installations")
    client.emulator.world.suspend(client.installation().id)

    after = await post(client, "reset")

    assert after == before
    assert client.emulator.world.requests is requests


async def test_keys_rotate(client: Client) -> None:
    made = await post(client, "keys")
    given = await post(client, "keys", {"pem": new_private_key()})
    listed = (await client.ask("GET", f"{CONTROL}/keys")).json["keys"]
    await client.ask("DELETE", f"{CONTROL}/keys/{listed[0]}")

    old = await client.ask("POST", "/app/accessTokens", bearer=client.sign())
    new = await client.ask("POST", "/app/accessTokens", bearer=client.sign(made["pem"]))

    assert listed[1:] == [made["fingerprint"], given["fingerprint"]]
    assert "pem" not in given
    assert (old.status, new.status) == (401, 200)


async def test_private_key_can_be_fetched(client: Client) -> None:
    reply = await client.ask("GET", f"{CONTROL}/key")

    assert reply.body.decode() == client.emulator.private_key_pem


async def test_form_of_curl_is_read_as_json(client: Client) -> None:
    reply = await client.ask("POST", f"{CONTROL}/clock", data=b'{"shift": 1}')

    assert reply.json["shift"] == 1


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("clock", {}, "missing required field `shift`"),
        ("clock", {"shift": "x"}, "Expected `float`"),
        ("clock", [], "Expected `object`"),
        ("faults", {"target": "x", "kind": "slow"}, "target must be one of mints"),
        ("faults", {"target": "mints", "kind": "x"}, "Invalid enum value 'x'"),
        ("faults", {"target": "mints", "kind": "slow", "count": 0}, "count must be between"),
        ("faults", {"target": "mints", "kind": "slow", "often": 1}, "unknown field `often`"),
        ("faults", {"target": "mints", "kind": "status", "status": 99}, "status must be between"),
        ("installations", {"count": 0}, "count must be between"),
        ("installations", {"count": 2, "installationId": "i"}, "ids can be chosen for one"),
        ("installations", {"credits": -1}, "credits must not be negative"),
        ("settings", {"port": 1}, "port cannot be changed"),
        ("settings", {"nonsense": 1}, "nonsense cannot be changed"),
        ("settings", {"latency": "x"}, "Expected `float`"),
        ("settings", {"mint_status": 500}, "must be one of [200, 201]"),
        ("keys", {"pem": "x"}, "pem must be an RSA key"),
    ],
)
async def test_bad_control_input_says_what_is_wrong(
    client: Client, path: str, body: object, message: str
) -> None:
    told = await post(client, path, body)

    assert told["statusCode"] == 400
    assert message in told["message"][0]


async def test_taken_id_is_refused(client: Client) -> None:
    told = await post(client, "installations", {"installationId": client.installation().id})

    assert told["statusCode"] == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "installations/none/revoke"),
        ("POST", "requests/none/approve"),
        ("DELETE", "keys/none"),
        ("GET", "nothing"),
    ],
)
async def test_unknown_control_path_or_thing_is_not_found(
    client: Client, method: str, path: str
) -> None:
    reply = await client.ask(method, f"{CONTROL}/{path}")

    assert reply.status == 404

"""The control API's part about app keys, all of which are throw-away keys."""

from typing import Final

import msgspec

from icr_proxy.emulator.api.calls import Answer, Call, Route, json_answer
from icr_proxy.emulator.api_errors import invalid, not_found
from icr_proxy.emulator.registry.app_keys import new_private_key


class _Key(msgspec.Struct, forbid_unknown_fields=True):
    pem: str | None = None


def read_private_key(call: Call) -> Answer:
    """Hand out the first private key."""
    return Answer(
        body=call.world.keys.private_pem.encode(),
        headers=(("Content-Type", "application/x-pem-file"),),
    )


def list_keys(call: Call) -> Answer:
    """List the fingerprints of active keys."""
    return json_answer({"keys": list(call.world.keys.active)})


def add_key(call: Call) -> Answer:
    """Activate a key: the given one, or a new one whose private half is in the answer."""
    given = call.decode(_Key).pem
    pem = given or new_private_key()
    try:
        fingerprint = call.world.keys.add(pem)
    except ValueError as exc:
        raise invalid("pem must be an RSA key without a passphrase") from exc
    made = {} if given else {"pem": pem}
    return json_answer({"fingerprint": fingerprint, **made}, status=201)


def delete_key(call: Call) -> Answer:
    """Deactivate a key."""
    if not call.world.keys.delete(call.params["fingerprint"]):
        raise not_found("Key")
    return json_answer({"keys": list(call.world.keys.active)})


ROUTES: Final = (
    Route("GET", "/_emulator/key", read_private_key, faults=None),
    Route("GET", "/_emulator/keys", list_keys, faults=None),
    Route("POST", "/_emulator/keys", add_key, faults=None),
    Route("DELETE", "/_emulator/keys/{fingerprint}", delete_key, faults=None),
)

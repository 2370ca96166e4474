"""What the console asks for beside numbers: the facts of this proxy, and what a request would meet.

Nothing is sent to the API. Only an open console needs this; running does not import it.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import msgspec

from icr_proxy import __version__
from icr_proxy.admin.token_state import ShownStatus, token_state
from icr_proxy.config.reference import NOT_SET, in_effect
from icr_proxy.config.value_types import KeyHash, ListOf, PathText, SecretText, StoreUrl
from icr_proxy.errors import DECODE_ERRORS
from icr_proxy.forwarding.explain import arrive, explain
from icr_proxy.forwarding.explain_output import document, rows, verdict
from icr_proxy.http1.problem import refusals
from icr_proxy.identifiers import TokenKey
from icr_proxy.server.response import BAD_REQUEST, OK, json_page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from icr_proxy.admin.token_state import TokenState
    from icr_proxy.config.models import Config
    from icr_proxy.config.value_types import ValueType
    from icr_proxy.forwarding.explain import Explanation
    from icr_proxy.server.response import Page

# Of values of these kinds it is told that they are set: a path says more about a machine than a
# reader need know, and a hash is something to try keys against.
HELD_BACK = (PathText, SecretText, StoreUrl, KeyHash)
NOTHING = "none"  # what an empty list shows as
LISTENER_FACTS = ("bind", "exposed", "tags", "installation", "untagged", "allow")


class ExplainQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A request as somebody types it."""

    method: str
    url: str
    headers: list[str] = []
    listener: str | None = None


def answer_explain(body: bytes, *, config: Config, status: Mapping[str, object]) -> Page:
    """Say what would happen to a request; `status` is that of this proxy."""
    try:
        asked = msgspec.json.decode(body, type=ExplainQuery)
    except DECODE_ERRORS:
        return json_page(BAD_REQUEST, {"message": "Send {method, url, headers, listener} as JSON."})
    try:
        question = arrive(config, asked.method, asked.url, asked.headers, listener=asked.listener)
    except ValueError as error:
        return json_page(BAD_REQUEST, {"message": f"{error}."})
    explanation = explain(config, question)
    token = _token(explanation, status)
    return json_page(
        OK,
        {
            **document(explanation, config=config, token=token),
            "rows": list(rows(explanation, config=config, token=token)),
            "sentence": verdict(explanation),
        },
    )


def _token(explanation: Explanation, status: Mapping[str, object]) -> TokenState | None:
    key = explanation.credential
    if not isinstance(key, TokenKey) or explanation.refusal is not None:
        return None
    return token_state(msgspec.convert(status, ShownStatus), key, where="here")


def facts(config: Config) -> dict[str, object]:
    """Tell what does not change from one second to the next; nothing secret, no path of a file."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "listeners": [
            {name: getattr(each, name) for name in LISTENER_FACTS} for each in config.listeners
        ],
        "installation_header": config.headers.installation,
        "codes": {
            kind.code: {"status": kind.status, "title": kind.title, "meaning": meaning}
            for kind, meaning in refusals().items()
        },
        "config": _settings(config),
    }


def _settings(config: Config) -> list[dict[str, object]]:
    """List every key with its value, and whether that is not the default."""
    return [
        {"key": key, "value": _shown(text, kind), "changed": is_changed}
        for key, text, kind, is_changed in in_effect(config)
    ]


def _shown(text: str, kind: ValueType) -> str:
    item = kind.item if isinstance(kind, ListOf) else kind
    is_held_back = isinstance(item, HELD_BACK) and text not in (NOT_SET, NOTHING)
    return "(set)" if is_held_back else text

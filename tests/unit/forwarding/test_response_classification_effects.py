"""What an answer proves about the API's having acted; whatever proves nothing is unknown."""

import pytest

from icr_proxy.forwarding.response_classification import Effect, classify_effect

HINT = ((b"retry-AFTER", b"5"),)


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        pytest.param(200, Effect.APPLIED, id="200"),
        pytest.param(202, Effect.APPLIED, id="202"),
        pytest.param(299, Effect.APPLIED, id="299"),
        pytest.param(303, Effect.APPLIED, id="303 see what came of it"),
        pytest.param(307, Effect.APPLIED, id="307 all is known"),
        pytest.param(400, Effect.REJECTED, id="400"),
        pytest.param(404, Effect.REJECTED, id="404"),
        pytest.param(409, Effect.REJECTED, id="409"),
        pytest.param(422, Effect.REJECTED, id="422"),
        pytest.param(401, Effect.NOT_APPLIED, id="401 the token"),
        pytest.param(403, Effect.NOT_APPLIED, id="403 the permission"),
        pytest.param(425, Effect.NOT_APPLIED, id="425 too early"),
        pytest.param(429, Effect.NOT_APPLIED, id="429 too many"),
        pytest.param(408, Effect.UNKNOWN, id="408 of somebody on the way"),
        pytest.param(460, Effect.UNKNOWN, id="460 of somebody on the way"),
        pytest.param(499, Effect.UNKNOWN, id="499 of somebody on the way"),
        pytest.param(500, Effect.UNKNOWN, id="500 after a commit perhaps"),
        pytest.param(502, Effect.UNKNOWN, id="502 of a gateway"),
        pytest.param(503, Effect.UNKNOWN, id="503 without a hint, Envoy's"),
        pytest.param(504, Effect.UNKNOWN, id="504 of a gateway"),
        pytest.param(507, Effect.UNKNOWN, id="507"),
        pytest.param(520, Effect.UNKNOWN, id="520 Cloudflare's"),
        pytest.param(501, Effect.REJECTED, id="501 no such method"),
        pytest.param(505, Effect.REJECTED, id="505 no such version"),
        pytest.param(600, Effect.UNKNOWN, id="no class that is known"),
        pytest.param(999, Effect.UNKNOWN, id="no class at all"),
        pytest.param(199, Effect.UNKNOWN, id="no final status"),
    ],
)
def test_what_a_status_proves(status: int, fate: Effect) -> None:
    assert classify_effect(status, ()) is fate


def test_503_with_a_hint_when_to_come_back_was_said_on_purpose() -> None:
    assert classify_effect(503, HINT) is Effect.NOT_APPLIED


@pytest.mark.parametrize("status", [500, 502, 504, 408])
def test_a_hint_proves_nothing_elsewhere(status: int) -> None:
    assert classify_effect(status, HINT) is Effect.UNKNOWN

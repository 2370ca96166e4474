"""What an answer proves about the API's having acted; whatever proves nothing is unknown."""

import pytest

from icr_proxy.forwarding.response_classification import Fate, fate_of

HINT = ((b"retry-AFTER", b"5"),)


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        pytest.param(200, Fate.DONE, id="200"),
        pytest.param(202, Fate.DONE, id="202"),
        pytest.param(299, Fate.DONE, id="299"),
        pytest.param(303, Fate.DONE, id="303 see what came of it"),
        pytest.param(307, Fate.DONE, id="307 all is known"),
        pytest.param(400, Fate.REFUSED, id="400"),
        pytest.param(404, Fate.REFUSED, id="404"),
        pytest.param(409, Fate.REFUSED, id="409"),
        pytest.param(422, Fate.REFUSED, id="422"),
        pytest.param(401, Fate.NOT_NOW, id="401 the token"),
        pytest.param(403, Fate.NOT_NOW, id="403 the permission"),
        pytest.param(425, Fate.NOT_NOW, id="425 too early"),
        pytest.param(429, Fate.NOT_NOW, id="429 too many"),
        pytest.param(408, Fate.UNKNOWN, id="408 of somebody on the way"),
        pytest.param(460, Fate.UNKNOWN, id="460 of somebody on the way"),
        pytest.param(499, Fate.UNKNOWN, id="499 of somebody on the way"),
        pytest.param(500, Fate.UNKNOWN, id="500 after a commit perhaps"),
        pytest.param(502, Fate.UNKNOWN, id="502 of a gateway"),
        pytest.param(503, Fate.UNKNOWN, id="503 without a hint, Envoy's"),
        pytest.param(504, Fate.UNKNOWN, id="504 of a gateway"),
        pytest.param(507, Fate.UNKNOWN, id="507"),
        pytest.param(520, Fate.UNKNOWN, id="520 Cloudflare's"),
        pytest.param(501, Fate.REFUSED, id="501 no such method"),
        pytest.param(505, Fate.REFUSED, id="505 no such version"),
        pytest.param(600, Fate.UNKNOWN, id="no class that is known"),
        pytest.param(999, Fate.UNKNOWN, id="no class at all"),
        pytest.param(199, Fate.UNKNOWN, id="no final status"),
    ],
)
def test_what_a_status_proves(status: int, fate: Fate) -> None:
    assert fate_of(status, ()) is fate


def test_503_with_a_hint_when_to_come_back_was_said_on_purpose() -> None:
    assert fate_of(503, HINT) is Fate.NOT_NOW


@pytest.mark.parametrize("status", [500, 502, 504, 408])
def test_a_hint_proves_nothing_elsewhere(status: int) -> None:
    assert fate_of(status, HINT) is Fate.UNKNOWN

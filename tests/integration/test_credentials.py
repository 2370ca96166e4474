"""Whatever credentials and tags a caller sends: the API receives exactly one right value each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.app_fixture import TAG, RunningProxy, call, request_head

if TYPE_CHECKING:
    from icr_proxy.emulator.server import Emulator

ECHO = "/_emulator/echo/x"


def first_installation(emulator: Emulator) -> str:
    return next(iter(emulator.world.installations))


async def what_arrived(proxy: RunningProxy, emulator: Emulator, extra: str) -> dict[str, list[str]]:
    """Send these header lines through the proxy; give all headers the API received."""
    request = request_head(target=ECHO, tag=first_installation(emulator), extra=extra)
    answer = await call(proxy.port, request)
    assert answer.status == 200, answer.body
    found: dict[str, list[str]] = {}
    for name, value in json.loads(answer.body)["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param("", id="none"),
        pytest.param("Authorization: Bearer crs_" + "0" * 48 + "\r\n", id="valid-looking"),
        pytest.param("Authorization: Bearer \r\n", id="empty-bearer"),
        pytest.param("Authorization: Bearer a\r\nAUTHORIZATION: Bearer b\r\n", id="two"),
        pytest.param("Authorization: Basic dXNlcjpwYXNz\r\n", id="basic"),
        pytest.param("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n", id="proxy"),
        pytest.param("Connection: authorization\r\n", id="named-in-connection"),
        pytest.param("Connection: close, Authorization , x-icr-api-version\r\n", id="listed"),
        pytest.param("x-icr-api-version: 2023-06-16\r\n", id="version-lower-case"),
        pytest.param("X-ICR-API-VERSION: 2023-06-16\r\n", id="version-upper-case"),
        pytest.param("X-Icr-Api-Version: \r\n", id="version-empty"),
        pytest.param(
            "X-ICR-Api-Version: 2023-06-16\r\nx-icr-api-version: 2023-06-16\r\n",
            id="version-twice",
        ),
        pytest.param("X_ICR_Installation_Id: other\r\n", id="tag-with-underscores"),
        pytest.param("X_Icr_Api_Version: 1999-01-01\r\n", id="version-with-underscores"),
        pytest.param("Authorization_: x\r\nProxy_Authorization: x\r\n", id="odd-underscores"),
    ],
)
async def test_the_api_receives_one_right_value_of_each(
    proxy: RunningProxy, emulator: Emulator, extra: str
) -> None:
    arrived = await what_arrived(proxy, emulator, extra)

    token = next(iter(emulator.world.tokens.values()))
    assert arrived["authorization"] == [f"Bearer {token.token}"]
    assert arrived["x-icr-api-version"] == ["2023-06-16"]
    assert arrived["host"] == [emulator.base_url.removeprefix("http://")]
    assert not {TAG.lower(), "x_icr_installation_id", "x_icr_api_version"} & set(arrived)
    assert not {"proxy-authorization", "proxy_authorization", "connection"} & set(arrived)


async def test_two_different_versions_are_refused(proxy: RunningProxy, emulator: Emulator) -> None:
    extra = "x-icr-api-version: 2023-06-16\r\nX-ICR-Api-Version: 1999-01-01\r\n"

    answer = await call(
        proxy.port, request_head(target=ECHO, tag=first_installation(emulator), extra=extra)
    )

    assert answer.problem["code"] == "bad-request"
    assert not [seen for seen in emulator.world.requests if seen.target == ECHO]


async def test_a_callers_own_version_reaches_the_api(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    extra = "x-icr-api-version: 1999-01-01\r\n"

    answer = await call(
        proxy.port, request_head(target=ECHO, tag=first_installation(emulator), extra=extra)
    )

    assert answer.status == 400
    assert emulator.world.requests[-1].values("x-icr-api-version") == ["1999-01-01"]


BAD_TAGS: list[Any] = [
    pytest.param("undefined", id="undefined"),
    pytest.param("null", id="null"),
    pytest.param("None", id="none"),
    pytest.param("NaN", id="nan"),
    pytest.param("", id="empty"),
    pytest.param(" ", id="blank"),
    pytest.param(f"a\r\n{TAG}: a", id="repeated-same"),
    pytest.param(f"a\r\n{TAG.lower()}: b", id="repeated-other"),
    pytest.param("a, b", id="listed"),
    pytest.param("../x", id="traversal"),
    pytest.param("%2e%2e", id="encoded-dots"),
    pytest.param("a/b", id="slash"),
    pytest.param("a" * 65, id="65-characters"),
    pytest.param("a%0d%0aX: y", id="encoded-crlf"),
    pytest.param("a\rb", id="bare-cr"),
    pytest.param("a\nb", id="bare-lf"),
    pytest.param("ïd", id="non-ascii"),
    pytest.param("a?b", id="question-mark"),
    pytest.param("a;b", id="semicolon"),
]


@pytest.mark.parametrize("tag", BAD_TAGS)
async def test_a_tag_that_names_nothing_is_refused_before_any_mint(
    proxy: RunningProxy, emulator: Emulator, tag: str
) -> None:
    answer = await call(proxy.port, request_head(tag=tag))

    assert answer.status == 400
    assert answer.problem["code"] == "installation-invalid"
    assert answer.problem["error"] == "Bad Request"
    assert emulator.world.traffic.total == 0


async def test_without_a_tag_it_says_which_header_to_send(
    proxy: RunningProxy, emulator: Emulator
) -> None:
    answer = await call(proxy.port, request_head(tag=None))

    assert answer.problem["code"] == "installation-required"
    assert TAG in answer.problem["message"]
    assert emulator.world.traffic.total == 0


async def test_a_listener_may_have_an_installation_of_its_own(emulator: Emulator) -> None:
    from tests.support.app_fixture import proxy_before  # noqa: PLC0415  # the fixture of that name is in the way

    own = first_installation(emulator)

    async with proxy_before(emulator, listener={"installation": own}) as proxy:
        answer = await call(proxy.port, request_head(target=ECHO, tag=None))

    assert answer.status == 200
    assert json.loads(answer.body)["installationId"] == own

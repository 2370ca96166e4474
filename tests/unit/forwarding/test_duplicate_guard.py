"""The duplicate guard between a caller and an API that does what a test says."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.clock import Clocks
from icr_proxy.config.inbound_models import (
    CallerConfig,
    LimitsConfig,
    ListenerConfig,
    PolicyConfig,
    RuleConfig,
)
from icr_proxy.config.models import TimeoutsConfig
from icr_proxy.forwarding.duplicate_guard import READ_AHEAD, describe
from icr_proxy.forwarding.duplicate_store import ENTRIES_SHARE
from icr_proxy.forwarding.forwarder import ForwardJob
from icr_proxy.forwarding.request_headers import Prepared
from icr_proxy.policy.caller_auth import hash_of, new_key
from tests.support.app_fixture import (
    Clock,
    RawAnswer,
    RunningProxy,
    ScriptedUpstream,
    Visit,
    call,
    config_for,
    minted,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)
from tests.unit.observability.test_outcome import journal
from tests.unit.server.test_request import body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Act = Callable[[Visit], Awaitable[None]]

BODY = b'{"fromId":"org-1"}'
NOT_FOUND = b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"
ON = PolicyConfig(duplicate_guard=60.0)


@dataclass
class Stage:
    """A proxy before an API that does one thing after the other with writes, then says `ok`."""

    proxy: RunningProxy
    api: ScriptedUpstream
    clock: Clock
    todo: list[Act]
    bodies: list[bytes] = field(default_factory=list)

    async def write(self, body: bytes = BODY, *, tag: str = "inst-1", extra: str = "") -> RawAnswer:
        return await call(self.proxy.port, post(body, tag=tag, extra=extra))

    @property
    def writes(self) -> int:
        return len(self.api.heads)

    def counted(self, result: str) -> float:
        return self.proxy.metric("duplicates_total", result=result)


def post(
    body: bytes = BODY, *, tag: str = "inst-1", extra: str = "", target: str = "/v1/retire"
) -> bytes:
    lines = f"Content-Length: {len(body)}\r\n{extra}"
    return request_head("POST", target, tag=tag, extra=lines) + body


async def until(happened: Callable[[], object]) -> None:
    """Wait for what nobody tells."""
    while not happened():  # noqa: ASYNC110  # for the same reason
        await asyncio.sleep(0.01)


def key(text: str) -> str:
    return f"Idempotency-Key: {text}\r\n"


async def body_of(visit: Visit, head: bytes) -> bytes:
    if b"Transfer-Encoding: chunked" in head:
        body = b""
        while size := int(await visit.reader.readuntil(b"\r\n"), 16):
            body += await visit.reader.readexactly(size)
            await visit.reader.readexactly(2)
        await visit.reader.readexactly(2)
        return body
    length = head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]
    return await visit.reader.readexactly(int(length or 0))


@asynccontextmanager
async def stage(
    *todo: Act, mint: Callable[[int], bytes] = minted, **sections: Any
) -> AsyncIterator[Stage]:
    seen: list[bytes] = []
    acts = list(todo)

    async def script(visit: Visit, head: bytes) -> None:
        seen.append(await body_of(visit, head))
        await (acts.pop(0) if acts else well)(visit)

    clock = Clock()
    clocks = Clocks(now=time.time, clock=clock, random=random.random)  # noqa: TID251  # tokens live by it
    sections = {"policy": ON} | sections
    async with (
        scripted_upstream(script, mint=mint) as api,
        running(config_for(api.url, **sections), clocks=clocks) as proxy,
    ):
        yield Stage(proxy=proxy, api=api, clock=clock, todo=acts, bodies=seen)


# -- what the API may do --------------------------------------------------------------------------


async def well(visit: Visit) -> None:
    await visit.say(ok(b"done"))


async def reset(visit: Visit) -> None:
    visit.reset()
    raise ConnectionResetError


async def silence(visit: Visit) -> None:
    await visit.reader.read()


async def half(visit: Visit) -> None:
    await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    raise ConnectionResetError


async def half_and_silence(visit: Visit) -> None:
    await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    await visit.reader.read()


def says(status: int, *, headers: bytes = b"", body: bytes = b"{}") -> Act:
    async def act(visit: Visit) -> None:
        await visit.say(
            b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)
        )

    return act


# -- without a key --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "status"),
    [
        pytest.param(reset, 502, id="the connection broke"),
        pytest.param(silence, 504, id="no answer in time"),
        *(pytest.param(says(n), n, id=str(n)) for n in (408, 500, 502, 503, 504, 520)),
    ],
)
async def test_a_write_of_unknown_outcome_is_not_sent_again(act: Act, status: int) -> None:
    upstream = {"timeouts": TimeoutsConfig(first_byte=0.2)}
    async with stage(act, upstream=upstream) as scene:
        first = await scene.write(extra="X-Request-Id: the-first\r\n")
        second = await scene.write()

        assert first.status == status
        assert second.problem["code"] == "duplicate-suspected"
        assert "the-first" in second.problem["message"]
        assert second.values(b"X-ICR-Proxy-Duplicate-Of") == [b"the-first"]
        assert second.values(b"Retry-After") == [b"60"]
        assert scene.writes == 1
        line = scene.proxy.log("request.done")[-1]
        assert (line["code"], line["duplicate_of"]) == ("duplicate-suspected", "the-first")
        assert (line["bytes_in"], line["attempts"]) == (len(BODY), 0)
        assert (scene.counted("left-open"), scene.counted("refused")) == (1, 1)


async def test_retry_after_is_what_is_left_and_then_it_may_be_sent() -> None:
    async with stage(reset) as scene:
        await scene.write()
        scene.clock.at += 45.5
        refused = await scene.write()
        scene.clock.at += 14.5
        sent = await scene.write()

        assert refused.values(b"Retry-After") == [b"15"]
        assert sent.body == b"done"
        assert scene.counted("expired") == 1


async def test_the_time_limit_of_everything_leaves_it_open() -> None:
    async with stage(silence, upstream={"timeouts": TimeoutsConfig(total=0.2)}) as scene:
        first = await scene.write()
        second = await scene.write()

    assert (first.status, second.status) == (504, 409)
    assert scene.writes == 1


@pytest.mark.parametrize("act", [silence, half_and_silence], ids=["no answer", "half an answer"])
async def test_a_caller_that_leaves_does_not_know_and_is_not_served_again(act: Act) -> None:
    async with stage(act) as scene:
        _, writer = await asyncio.open_connection("127.0.0.1", scene.proxy.port)
        writer.write(post())
        await until(lambda: scene.bodies)
        writer.close()
        await until(lambda: scene.proxy.log("request.done"))
        second = await scene.write()

    assert second.problem["code"] == "duplicate-suspected"
    assert scene.writes == 1


async def test_an_answer_that_breaks_off_leaves_it_open() -> None:
    async with stage(half) as scene:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await scene.write()
        second = await scene.write()

    assert second.status == 409
    assert scene.writes == 1


async def test_an_answer_that_the_caller_left_unread_leaves_it_open() -> None:
    """A tool whose time was up as the answer came."""
    answered = asyncio.Event()

    async def answer(visit: Visit) -> None:
        await visit.say(ok(b"x" * 3_000_000))
        answered.set()

    async with stage(answer) as scene:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.proxy.port, limit=1024)
        writer.write(post())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await until(lambda: scene.proxy.log("request.done"))
        second = await scene.write()

    assert second.status == 409
    assert scene.writes == 1


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(well, id="200"),
        *(pytest.param(says(n), id=str(n)) for n in (202, 303, 400, 401, 403, 404, 409, 422)),
        pytest.param(says(429), id="429"),
        pytest.param(says(503, headers=b"Retry-After: 1\r\n"), id="503 with a hint"),
    ],
)
async def test_after_a_known_outcome_the_same_write_is_a_new_one(act: Act) -> None:
    async with stage(act) as scene:
        first = await scene.write()
        sent = scene.writes
        second = await scene.write()

    assert first.status != 409 or not first.values(b"X-ICR-Proxy-Error")
    assert (second.status, second.body) == (200, b"done")
    assert scene.writes == sent + 1


async def test_many_equal_writes_one_after_the_other_are_all_done() -> None:
    async with stage() as scene:
        statuses = [(await scene.write()).status for _ in range(50)]

    assert statuses == [200] * 50
    assert scene.writes == 50


async def test_of_equal_writes_at_the_same_time_one_is_sent() -> None:
    together = asyncio.Event()

    async def wait(visit: Visit) -> None:
        await together.wait()
        await well(visit)

    async with stage(wait) as scene:
        tasks = [asyncio.ensure_future(scene.write()) for _ in range(10)]
        await until(lambda: scene.counted("refused") == 9)
        together.set()
        answers = await asyncio.gather(*tasks)

    assert sorted(answer.status for answer in answers) == [200] + [409] * 9
    assert scene.writes == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(post(tag="inst-2"), id="another installation"),
        pytest.param(post(target="/v1/transfer"), id="another target"),
        pytest.param(post(target="/v1/retire?x"), id="another query"),
        pytest.param(post(BODY.replace(b":", b": ")), id="another white space"),
        pytest.param(post(b""), id="no body"),
    ],
)
async def test_what_differs_goes_on(other: bytes) -> None:
    async with stage(reset) as scene:
        await scene.write()
        answer = await call(scene.proxy.port, other)

    assert answer.body == b"done"


async def test_reads_are_not_guarded() -> None:
    async with stage(silence, upstream={"timeouts": TimeoutsConfig(first_byte=0.2)}) as scene:
        first = await call(scene.proxy.port, request_head())
        second = await call(scene.proxy.port, request_head())

    assert (first.status, second.status) == (504, 200)


async def test_without_the_setting_nothing_is_guarded() -> None:
    async with stage(reset, policy=PolicyConfig()) as scene:
        first = await scene.write()
        second = await scene.write(extra=key("k"))
        third = await scene.write(extra=key("k"))

    assert (first.status, second.status, third.status) == (502, 200, 200)
    assert scene.writes == 3


# -- what was never sent --------------------------------------------------------------------------


async def test_what_could_not_be_sent_may_be_tried_again_at_once() -> None:
    async def script(visit: Visit, head: bytes) -> None:
        await body_of(visit, head)
        await well(visit)

    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(scripted_upstream(script))
        async with running(config_for(api.url, policy=ON)) as proxy:
            primed = await call(proxy.port, post())
            await stack.aclose()
            answers = [await call(proxy.port, post()) for _ in range(3)]

    assert primed.status == 200
    assert [answer.problem["code"] for answer in answers] == ["upstream-unreachable"] * 3


async def test_a_write_without_a_token_was_not_sent() -> None:
    async with stage(mint=lambda _: NOT_FOUND) as scene:
        answers = [await scene.write() for _ in range(2)]

    assert [answer.problem["code"] for answer in answers] == ["installation-refused"] * 2


async def test_a_caller_that_left_while_the_token_was_on_its_way_may_come_back() -> None:
    async with stage(mint=lambda number: minted(number) if number > 1 else b"") as scene:
        _, writer = await asyncio.open_connection("127.0.0.1", scene.proxy.port)
        writer.write(post())
        await until(lambda: scene.api.mints)
        writer.close()
        await until(lambda: scene.proxy.log("request.done"))
        again = asyncio.ensure_future(scene.write())
        done, _ = await asyncio.wait([again], timeout=0.1)
        again.cancel()

    assert not done  # it waits for the token, as the first did


async def test_what_policy_forbids_was_not_sent() -> None:
    rule = RuleConfig(name="no", action="deny", paths=("/v1/retire",))
    async with stage(policy=PolicyConfig(duplicate_guard=60.0, rules=(rule,))) as scene:
        answers = [await scene.write() for _ in range(2)]

    assert [answer.problem["code"] for answer in answers] == ["policy-denied"] * 2


async def test_a_request_whose_token_is_replaced_is_no_duplicate_of_itself() -> None:
    async with stage(says(401)) as scene:
        answer = await scene.write()

        assert (answer.status, answer.body) == (200, b"done")
        assert scene.bodies == [BODY, BODY]
        assert scene.proxy.log("request.done")[0]["attempts"] == 2
        assert scene.counted("refused") == 0


async def test_a_write_whose_token_was_refused_and_not_replaced_was_not_acted_on() -> None:
    async with stage(
        says(401),
        mint=lambda number: minted(number) if number == 1 else NOT_FOUND,
    ) as scene:
        answers = [await scene.write() for _ in range(2)]

    assert [answer.problem["code"] for answer in answers] == ["installation-refused"] * 2


# -- bodies ---------------------------------------------------------------------------------------


async def test_a_body_is_received_whole_before_anything_is_sent() -> None:
    async with stage() as scene:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.proxy.port)
        writer.write(post()[:-5])
        await asyncio.sleep(0.05)
        before = (scene.writes, scene.api.mints)
        writer.write(BODY[-5:])
        answer = await read_answer(reader)
        writer.close()

    assert before == (0, 0)
    assert answer.status == 200
    assert scene.bodies == [BODY]


async def test_a_caller_that_waits_for_the_go_ahead_gets_it() -> None:
    async with stage() as scene:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.proxy.port)
        writer.write(post(extra="Expect: 100-continue\r\n")[: -len(BODY)])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        answer = await read_answer(reader)
        writer.close()

    assert answer.status == 200


async def test_a_body_in_chunks_is_the_same_body() -> None:
    chunked = request_head("POST", "/v1/retire", extra="Transfer-Encoding: chunked\r\n")
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    async with stage(reset) as scene:
        await call(scene.proxy.port, chunked + pieces + b"0\r\n\r\n")
        second = await scene.write()

    assert second.status == 409
    assert scene.bodies == [BODY]


@pytest.mark.parametrize("replay_buffer", [0, 10, 1 << 20])
async def test_a_long_body_goes_on_as_it_is_whatever_is_kept_of_it(replay_buffer: int) -> None:
    long = random.Random(1).randbytes(5 * READ_AHEAD)
    async with stage(limits=LimitsConfig(replay_buffer=replay_buffer)) as scene:
        answers = [await scene.write(body) for body in (long, BODY, long[: READ_AHEAD + 1])]

    assert [answer.status for answer in answers] == [200] * 3
    assert scene.bodies == [long, BODY, long[: READ_AHEAD + 1]]


@pytest.mark.parametrize(
    ("other", "status"),
    [
        pytest.param(b"x" * 200_000, 409, id="the same"),
        pytest.param(b"x" * 199_999 + b"y", 409, id="other only further on: a false alarm"),
        pytest.param(b"x" * 200_001, 200, id="another length"),
        pytest.param(b"y" + b"x" * 199_999, 200, id="another beginning"),
        pytest.param(b"x" * READ_AHEAD, 200, id="its beginning alone"),
    ],
)
async def test_a_long_body_is_known_by_its_beginning_and_its_length(
    other: bytes, status: int
) -> None:
    async with stage(reset) as scene:
        await scene.write(b"x" * 200_000)
        second = await scene.write(other)

    assert second.status == status


async def test_what_is_read_ahead_is_in_the_record_even_if_it_is_not_sent() -> None:
    source, story = body(b"hello"), journal()
    source.digest = sha256()
    job = ForwardJob(
        key=None,
        method="POST",
        target=b"/",
        prepared=Prepared((b"Host", b"a"), [], []),
        body=source,
        length=5,
        changes_state=True,
    )

    await describe(job, (), story)

    assert (story.bytes_in, story.digest_in) == (5, sha256(b"hello").hexdigest())


async def test_a_body_that_breaks_off_was_not_sent() -> None:
    async with stage() as scene:
        _, writer = await asyncio.open_connection("127.0.0.1", scene.proxy.port)
        writer.write(post()[:-5])
        await asyncio.sleep(0.05)
        writer.close()
        await until(lambda: scene.proxy.log("request.done"))

        assert scene.writes == 0
        assert (await scene.write()).status == 200


# -- with a key -----------------------------------------------------------------------------------


async def test_with_a_key_the_answer_is_given_again_and_the_api_not_asked() -> None:
    said = says(201, headers=b"X-Thing: a\r\nX-Thing: b\r\nKeep-Alive: 5\r\n", body=b'{"id":7}')
    async with stage(said) as scene:
        first = await scene.write(extra=key('"k-1"') + "X-Request-Id: the-first\r\n")
        second = await scene.write(extra=key('"k-1"'))

        assert scene.writes == 1
        assert b'\r\nIdempotency-Key: "k-1"\r\n' in scene.api.heads[0]
        assert (second.status, second.reason, second.body) == (201, b"X", b'{"id":7}')
        assert second.values(b"X-Thing") == [b"a", b"b"]
        assert second.values(b"Keep-Alive") == []
        assert first.values(b"Idempotency-Replayed") == []
        assert second.values(b"Idempotency-Replayed") == [b"true"]
        assert second.values(b"X-ICR-Proxy-Error") == []
        assert second.values(b"X-ICR-Proxy-Duplicate-Of") == [b"the-first"]
        line = scene.proxy.log("request.done")[-1]
        assert (line["status"], line["origin"], line["code"]) == (201, "proxy", None)
        assert (line["duplicate_of"], line["attempts"]) == ("the-first", 0)
        assert scene.counted("replayed") == 1


async def test_an_answer_without_length_is_given_again_whole() -> None:
    async def chunked(visit: Visit) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await visit.say(b"3\r\ndef\r\n0\r\n\r\n")

    async with stage(chunked) as scene:
        answers = [await scene.write(extra=key("k")) for _ in range(3)]

    assert [answer.body for answer in answers] == [b"abcdef"] * 3
    assert scene.writes == 1


async def test_an_answer_without_a_body_is_given_again() -> None:
    async def no_content(visit: Visit) -> None:
        await visit.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with stage(no_content) as scene:
        answers = [await scene.write(extra=key("k")) for _ in range(2)]

    assert [answer.status for answer in answers] == [204, 204]
    assert scene.writes == 1


async def test_a_key_with_another_body_is_refused() -> None:
    async with stage() as scene:
        await scene.write(extra=key("k") + "X-Request-Id: the-first\r\n")
        second = await scene.write(b"other", extra=key("k"))

        assert second.status == 422
        assert second.problem["code"] == "idempotency-key-reused"
        assert second.values(b"X-ICR-Proxy-Duplicate-Of") == [b"the-first"]
        assert scene.writes == 1
        assert scene.counted("key-reused") == 1


async def test_another_key_is_another_write() -> None:
    async with stage(reset) as scene:
        await scene.write(extra=key("k-1"))
        second = await scene.write(extra=key("k-2"))

    assert second.body == b"done"


@pytest.mark.parametrize("act", [reset, says(500)], ids=["no answer", "500"])
async def test_with_a_key_an_unknown_outcome_is_refused_as_well(act: Act) -> None:
    async with stage(act) as scene:
        await scene.write(extra=key("k"))
        second = await scene.write(extra=key("k"))

    assert second.problem["code"] == "duplicate-suspected"
    assert scene.writes == 1


async def test_with_a_key_a_write_under_way_is_refused() -> None:
    async with stage(silence) as scene:
        first = asyncio.ensure_future(scene.write(extra=key("k")))
        await until(lambda: scene.writes)
        second = await scene.write(extra=key("k"))
        first.cancel()

    assert second.problem["code"] == "duplicate-suspected"


async def test_an_answer_too_large_to_keep_is_named_and_not_asked_for_again() -> None:
    async with stage(says(200, body=b"x" * 100_000)) as scene:
        first = await scene.write(extra=key("k"))
        second = await scene.write(extra=key("k"))

    assert len(first.body) == 100_000
    assert second.problem["code"] == "duplicate-suspected"
    assert "not kept" in second.problem["message"]
    assert scene.writes == 1


async def test_a_kept_answer_is_never_given_to_another_installation() -> None:
    async with stage(says(200, body=b"of one"), says(200, body=b"of two")) as scene:
        answers = [await scene.write(tag=tag, extra=key("k")) for tag in ("inst-1", "inst-2") * 2]

    assert [answer.body for answer in answers] == [b"of one", b"of two"] * 2


async def test_a_kept_answer_is_never_given_to_another_caller() -> None:
    keys = {name: new_key() for name in ("one", "two")}
    callers = tuple(CallerConfig(name=name, keys=(hash_of(each),)) for name, each in keys.items())
    acts = (says(200, body=b"for one"), says(200, body=b"for two"))
    async with stage(*acts, callers=callers) as scene:
        answers = [
            await scene.write(extra=key("k") + f"Authorization: Bearer {keys[name]}\r\n")
            for name in ("one", "two") * 2
        ]

    assert [answer.body for answer in answers] == [b"for one", b"for two"] * 2


async def test_a_write_that_was_turned_away_may_come_again_with_its_key() -> None:
    async with stage(says(429)) as scene:
        first = await scene.write(extra=key("k"))
        second = await scene.write(extra=key("k"))

    assert (first.status, second.status) == (429, 200)


async def test_two_keys_are_refused_and_an_empty_one_is_none() -> None:
    async with stage(reset) as scene:
        two = await scene.write(extra=key("a") + key("b"))
        await scene.write(extra=key(""))
        empty = await scene.write(extra=key(""))

    assert two.problem["code"] == "bad-request"
    assert empty.status == 409
    assert scene.writes == 1


# -- the setting ----------------------------------------------------------------------------------


async def test_in_report_mode_it_only_says_what_it_would_do() -> None:
    policy = PolicyConfig(duplicate_guard=60.0, mode="report")
    async with stage(reset, policy=policy) as scene:
        await scene.write(extra="X-Request-Id: the-first\r\n")
        second = await scene.write()

        assert second.body == b"done"
        line = scene.proxy.log("request.done")[-1]
        assert (line["would_refuse"], line["duplicate_of"]) == ("duplicate-guard", "the-first")
        assert scene.counted("reported") == 1
        assert scene.proxy.metric("would_refuse_total") == 1


async def test_it_can_be_turned_on_and_off_while_running() -> None:
    async with stage(reset, reset, policy=PolicyConfig()) as scene:
        app = scene.proxy.app
        on = config_for(scene.api.url, policy=ON)
        off = config_for(scene.api.url)
        app.reload(lambda: on)
        turned_on = [(await scene.write()).status for _ in range(2)]
        app.reload(lambda: off)
        turned_off = await scene.write()

    assert turned_on == [502, 409]
    assert turned_off.status == 502


async def test_all_listeners_share_one_memory() -> None:
    async with scripted_upstream(lambda visit, _: reset(visit)) as api:
        config = config_for(api.url, policy=ON)
        listeners = (ListenerConfig(bind="127.0.0.1:0"), ListenerConfig(bind="127.0.0.1:0"))
        config = config.__class__(
            app=config.app,
            upstream=config.upstream,
            admin=config.admin,
            policy=ON,
            listeners=listeners,
        )
        async with running(config) as proxy:
            ports = [int(each.address.rpartition(":")[2]) for each in proxy.app.inbound.listeners]
            answers = [await call(port, post()) for port in ports]

    assert [answer.status for answer in answers] == [502, 409]


async def test_with_too_many_open_questions_a_write_is_refused_and_nothing_forgotten() -> None:
    async with stage(*[says(500)] * (ENTRIES_SHARE + 1)) as scene:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.proxy.port)
        for number in range(ENTRIES_SHARE):
            writer.write(post(b"%d" % number))
            assert (await read_answer(reader)).status == 500
        writer.close()

        one_more = await scene.write(b"one more")
        first = await scene.write(b"0")
        others = await scene.write(b"one more", tag="inst-2")

        assert one_more.problem["code"] == "overloaded"
        assert one_more.values(b"Retry-After") == [b"60"]
        assert first.status == 409
        assert others.status == 500
        assert scene.counted("full") == 1

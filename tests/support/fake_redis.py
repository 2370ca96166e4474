"""A Redis that is small and can be as unhelpful as a test wants.

The real one is in `tests/external/redis`.

It knows the few commands that the proxy sends, and of its scripts what they mean, not their
language: that the scripts themselves do this is shown with a real Redis.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from icr_proxy.shared_cache import redis_scripts as scripts

Reply = bytes | int | None | list["Reply"]


@dataclass
class TinyRedis:
    """What is in it, and how it behaves: `mood` may be `well`, `hangs`, `slow`, `babbles`, `full`,
    `rude`, or `forbids` (nobody may subscribe)."""

    port: int = 0
    mood: str = "well"
    password: str | None = None
    answers_left: int | None = None
    """How many scripts it runs before it hangs up."""
    values: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic
    tls: ssl.SSLContext | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _subscribers: dict[bytes, set[asyncio.StreamWriter]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Stop at once; what was in it stays."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
            await asyncio.wait({task})

    # -- data -------------------------------------------------------------------------------------

    def get(self, name: bytes) -> bytes | None:
        """Give what is there and lives."""
        value, end = self.values.get(name, (b"", 0.0))
        return value if end > self.clock() else None

    def put(self, name: bytes, value: bytes, *, milliseconds: int = 3_600_000) -> None:
        """Keep something."""
        self.values[name] = (value, self.clock() + milliseconds / 1000)

    def names(self, what: str) -> list[bytes]:
        """Give the names of entries, leases or epochs."""
        return [name for name in self.values if name.endswith(what.encode()) and self.get(name)]

    def publish(self, channel: bytes, message: bytes) -> None:
        """Tell whoever listens."""
        self.heard.append(message)
        for writer in self._subscribers.get(channel, ()):
            writer.write(encoded([b"message", channel, message]))

    # -- conversation -----------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            is_known = self.password is None
            while True:
                words = await _command(reader)
                self.asked.append(words[0].decode().upper())
                if self.mood == "hangs":
                    await asyncio.sleep(3600)
                if self.mood == "slow":
                    await asyncio.sleep(0.05)
                if self.mood == "babbles":
                    writer.write(b"%2\r\n!? what\r\n")
                    continue
                if self._is_tired(words):
                    break
                if words[0] == b"AUTH":
                    is_known = words[-1].decode() == self.password
                writer.write(self._answer(words, writer, is_known=is_known))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            for listeners in self._subscribers.values():
                listeners.discard(writer)
            writer.close()
            self._tasks.discard(task)

    def _is_tired(self, words: list[bytes]) -> bool:
        if self.answers_left is None or words[0] != b"EVAL":
            return False
        self.answers_left -= 1
        return self.answers_left < 0

    def _answer(self, words: list[bytes], writer: asyncio.StreamWriter, *, is_known: bool) -> bytes:
        command = words[0].upper()
        if not is_known:
            wrong = command == b"AUTH"
            return b"-WRONGPASS invalid\r\n" if wrong else b"-NOAUTH needed\r\n"
        if command == b"SUBSCRIBE":
            if self.mood == "forbids":
                return b"-NOPERM no channel\r\n"
            self._subscribers.setdefault(words[1], set()).add(writer)
            return encoded([b"subscribe", words[1], 1])
        return self._evaluate(words) if command == b"EVAL" else b"+OK\r\n"

    def _evaluate(self, words: list[bytes]) -> bytes:
        if self.mood == "full":
            return b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
        if self.mood == "rude":
            return encoded(7)
        number = int(words[2])
        return encoded(self._run(words[1].decode(), words[3 : 3 + number], words[3 + number :]))

    def _run(self, script: str, keys: list[bytes], words: list[bytes]) -> Reply:
        meaning: dict[str, Callable[[list[bytes], list[bytes]], Reply]] = {
            scripts.LOOK: self._look,
            scripts.PUT: self._put,
            scripts.GIVE_UP: self._give_up,
            scripts.DROP: self._drop,
            scripts.PROBE: lambda _keys, _words: 1,
        }
        return meaning[script](keys, words)

    def _look(self, keys: list[bytes], words: list[bytes]) -> Reply:
        entry, lease, epoch = keys
        if words[0] and self.get(lease) is None:
            self.put(lease, words[0], milliseconds=int(words[1]))
        found = self.get(entry)
        left = int((self.values[entry][1] - self.clock()) * 1000) if found is not None else -2
        return [found, left, self.get(lease), self.get(epoch)]

    def _put(self, keys: list[bytes], words: list[bytes]) -> Reply:
        entry, lease, epoch = keys
        if self.get(lease) == words[0]:
            del self.values[lease]
        if (self.get(epoch) or b"") != words[1]:
            return 0
        self.put(entry, words[2], milliseconds=int(words[3]))
        return 1

    def _give_up(self, keys: list[bytes], words: list[bytes]) -> Reply:
        if self.get(keys[1]) != words[0]:
            return 0
        del self.values[keys[1]]
        if words[1] != b"0":
            self.put(keys[1], scripts.FAILED, milliseconds=int(words[1]))
        return 1

    def _drop(self, keys: list[bytes], words: list[bytes]) -> Reply:
        entry, lease, epoch = keys
        if not words[0]:
            self.values.pop(entry, None)
            self.values.pop(lease, None)
            self.put(epoch, words[1], milliseconds=int(words[2]))
        elif (self.get(entry) or b"")[1:13] == words[0]:
            del self.values[entry]
        self.publish(words[3], words[4])
        return 1


def encoded(reply: Reply) -> bytes:
    """Write an answer as Redis does."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))
    return b"$%d\r\n%b\r\n" % (len(reply), reply)


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    number = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(number):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append(await reader.readexactly(size))
        await reader.readexactly(2)
    return words


@asynccontextmanager
async def tiny_redis(
    *, password: str | None = None, mood: str = "well", tls: ssl.SSLContext | None = None
) -> AsyncIterator[TinyRedis]:
    """Run one."""
    redis = TinyRedis(password=password, mood=mood, tls=tls)
    await redis.start()
    try:
        yield redis
    finally:
        await redis.kill()
        await asyncio.sleep(0)

"""A client of the emulator, for tests: signs, mints, asks, and reads answers whole."""

import asyncio
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import aiohttp
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from multidict import CIMultiDictProxy
from yarl import URL

from icr_proxy.emulator.registry.entities import Installation
from icr_proxy.emulator.server import Emulator

NOW: Final = 1_800_000_000.0


@cache
def loaded(pem: str) -> RSAPrivateKey:
    """Load a key once: its check takes longer than most tests."""
    key = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read whole."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Client:
    """Asks an emulator."""

    def __init__(self, session: aiohttp.ClientSession, *, emulator: Emulator) -> None:
        self.session = session
        self.emulator = emulator

    def installation(self, number: int = 0) -> Installation:
        return list(self.emulator.world.installations.values())[number]

    def sign(self, key: str | None = None, **changes: object) -> str:
        """Sign an App JWT; a claim set to None is left out."""
        now = int(self.emulator.world.now())
        claims = {"iss": self.emulator.app_id, "iat": now - 60, "exp": now + 540, "alg": "RS256"}
        kept = {name: value for name, value in (claims | changes).items() if value is not None}
        pem = key or self.emulator.private_key_pem
        return jwt.encode(kept, loaded(pem), algorithm="RS256")

    async def ask(self, method: str, target: str, *, bearer: str = "", **kwargs: Any) -> Reply:
        headers = [("Authorization", f"Bearer {bearer}")] if bearer else []
        headers += kwargs.pop("headers", [])
        async with self.session.request(
            method, target, headers=headers, allow_redirects=False, **kwargs
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def mint(self, number: int = 0) -> str:
        """Mint a token for the `number`-th installation."""
        target = f"/app/installations/{self.installation(number).id}/accessTokens"
        reply = await self.ask("POST", target, bearer=self.sign())
        return str(reply.json["token"])

    async def mint_for_app(self) -> str:
        reply = await self.ask("POST", "/app/accessTokens", bearer=self.sign())
        return str(reply.json["token"])


async def raw(client: Client, request: bytes, *, later: bytes = b"", leave: bool = False) -> bytes:
    """Send bytes as they are, some of them later, when the emulator has seen the first.

    Gives the body of the answer, or whatever comes if we leave.
    """
    url = URL(client.emulator.base_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request)
    await writer.drain()
    requests = client.emulator.world.requests
    while later and not any(seen.body_length for seen in requests):  # noqa: ASYNC110
        await asyncio.sleep(0)
    writer.write(later)
    if leave:
        writer.write_eof()
        answer = await reader.read()
    else:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        answer = await reader.readexactly(int(found[1])) if found else b""
    writer.close()
    await writer.wait_closed()
    return answer

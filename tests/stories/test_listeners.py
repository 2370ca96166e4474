"""The doors of the real program, with curl as the caller."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.issuing import authority, issue, server_certificate
from tests.scenes import TAG
from tests.stories.program import GUARD_SECONDS, Program, program_before

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.emulator.server import Emulator


async def curl(emulator: Emulator, *words: str) -> tuple[int, str]:
    """Ask for the projects; give curl's exit code and what it says of the answer."""
    tag = f"{TAG}: {next(iter(emulator.world.installations))}"
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", tag, *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(GUARD_SECONDS):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def with_tls(folder: Path) -> dict[str, str]:
    """Give the variables of a listener with TLS whose files are in a folder."""
    cert, key = server_certificate().write(folder)
    (folder / "ca.crt").write_bytes(authority().cert_pem)
    return {
        "ICR_PROXY_LISTENERS__0__TLS__CERT": str(cert),
        "ICR_PROXY_LISTENERS__0__TLS__KEY": str(key),
    }


def secure(program: Program) -> str:
    return f"https://localhost:{program.port}/projects"


async def test_a_renewed_certificate_is_served_without_a_restart(
    emulator: Emulator, tmp_path: Path
) -> None:
    trust = ("--cacert", str(tmp_path / "new-ca.crt"))
    newer = issue("new authority")
    (tmp_path / "new-ca.crt").write_bytes(newer.cert_pem)
    async with program_before(emulator, tmp_path, **with_tls(tmp_path)) as program:
        first = await curl(emulator, "--cacert", str(tmp_path / "ca.crt"), secure(program))
        distrusted = await curl(emulator, *trust, secure(program))
        server_certificate(by=newer).write(tmp_path)
        second = await curl(emulator, *trust, secure(program))
        await program.until("tls.renewed")
        (tmp_path / "tls.key").write_text("half a ke")
        third = await curl(emulator, *trust, secure(program))
        rejected = await program.until("tls.rejected")

    assert first == second == third == (0, "200")
    assert distrusted == (60, "000")
    assert "tls.key: " in rejected["detail"]


async def test_only_callers_with_a_certificate_are_served(
    emulator: Emulator, tmp_path: Path
) -> None:
    clients = tmp_path / "clients.crt"
    clients.write_bytes(authority("clients").cert_pem)
    cert, key = issue("ledger", by=authority("clients")).write(tmp_path, "ledger")
    variables = with_tls(tmp_path) | {"ICR_PROXY_LISTENERS__0__TLS__CLIENT_CA": str(clients)}
    trust = ("--cacert", str(tmp_path / "ca.crt"))
    async with program_before(emulator, tmp_path, **variables) as program:
        known = await curl(
            emulator, *trust, "--cert", str(cert), "--key", str(key), secure(program)
        )
        unknown = await curl(emulator, *trust, secure(program))

    assert known == (0, "200")
    assert unknown[0] != 0
    assert unknown[1] == "000"

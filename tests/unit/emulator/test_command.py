"""`icr-proxy emulator` says how to use it, and goes away without a trace."""

import asyncio
import os
import re
import signal
import stat
from pathlib import Path

import pytest

from icr_proxy.emulator.command import serve
from icr_proxy.emulator.settings import EmulatorSettings


async def run(
    settings: EmulatorSettings,
    *,
    key_file: Path | None,
    number: int = signal.SIGTERM,
) -> tuple[list[str], str]:
    """Run it until it has said all; give what it said and what was in the key file."""
    lines: list[str] = []
    ready = asyncio.Event()

    def echo(line: str) -> None:
        lines.append(line)
        if "curl" in line or "icr-proxy run" in line:
            ready.set()

    async with asyncio.TaskGroup() as group:
        running = group.create_task(serve(settings, key_file=key_file, echo=echo))
        await ready.wait()
        path = Path(found(lines, r"key file +(.+)"))
        mode, text = look_at(path)
        os.kill(os.getpid(), number)
        await running
    assert mode == 0o600
    return lines, text


def look_at(path: Path) -> tuple[int, str]:
    return stat.S_IMODE(path.stat().st_mode), path.read_text(encoding="ascii")


def found(lines: list[str], pattern: str) -> str:
    match = re.search(pattern, "\n".join(lines))
    assert match is not None, lines
    return match[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_temporary_key_is_gone_at_exit(number: int) -> None:
    lines, text = await run(EmulatorSettings(), key_file=None, number=number)

    assert text.startswith("-----BEGIN PRIVATE KEY-----")
    assert not Path(found(lines, r"key file +(.+)")).parent.exists()
    assert lines[-1] == "emulator stopped"


async def test_key_does_not_take_the_place_of_a_pipe_or_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="Not a regular file"):
        await serve(EmulatorSettings(), key_file=tmp_path / "pipe", echo=lambda _line: None)

    assert (tmp_path / "pipe").is_fifo()


async def test_key_is_written_where_it_is_wanted_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("old and longer than any key" * 200)
    path.chmod(0o644)

    _, text = await run(EmulatorSettings(), key_file=path)

    assert path.read_text() == text
    assert text.endswith("-----END PRIVATE KEY-----\n")


async def test_lines_to_copy_are_complete() -> None:
    lines, _ = await run(EmulatorSettings(), key_file=None)

    told = "\n".join(lines)
    base = found(lines, r"(http://127\.0\.0\.1:\d+)/_emulator/state")
    assert f"ICR_PROXY_UPSTREAM__BASE_URL={base} icr-proxy run" in told
    assert "ICR_PROXY_APP__ID=5b1f7c1e-0a7e-4e0c-9d2a-1c2c0a6f0e01" in told
    assert "ICR_PROXY_APP__PRIVATE_KEY_FILE=" in told
    assert re.search(
        r"curl -H 'X-ICR-Installation-Id: eac56b38-[-0-9a-f]+' "
        r"http://127\.0\.0\.1:8080/organizations/fa1c239f-[-0-9a-f]+/inventory",
        told,
    )


async def test_long_lists_are_cut() -> None:
    lines, _ = await run(EmulatorSettings(installations=12), key_file=None)

    assert found(lines, "and (2) more") == "2"


async def test_it_runs_without_installations() -> None:
    lines, _ = await run(EmulatorSettings(installations=0), key_file=None)

    assert not [line for line in lines if "curl" in line]


async def test_key_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await serve(EmulatorSettings(), key_file=tmp_path / "no" / "key.pem", echo=print)

"""The process around the program: signals, standard descriptors, characters, its end."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from icr_proxy.cli.main import commands
from icr_proxy.runtime.bootstrap import approximate
from tests.support.program import environment, run_to_end, start
from tests.unit.cli.test_main import bare_environment, command_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from icr_proxy.emulator.server import Emulator

PROGRAM = [sys.executable, "-m", "icr_proxy"]
GUARD_SECONDS = 20
QUICK_SECONDS = 6.0  # on a busy machine; nothing here should take one, but an injector's drain

# -- standard descriptors -------------------------------------------------------------------------

CLOSED = [
    combination for size in (1, 2, 3) for combination in itertools.combinations((0, 1, 2), size)
]


def with_closed(numbers: tuple[int, ...], *words: str) -> list[str]:
    """Give a command line that starts the program with these descriptors closed."""
    closing = " ".join(f"{number}<&-" if number == 0 else f"{number}>&-" for number in numbers)
    return ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", *PROGRAM, *words]


@pytest.mark.parametrize("numbers", CLOSED, ids=str)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("version",), 0),
        (("check",), 2),
        (("run",), 2),
        (("health", "--admin", "127.0.0.1:1"), 1),
        (("audit", "verify", "/no/trail"), 2),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_commands_end_as_ever_with_closed_descriptors(
    numbers: tuple[int, ...], words: tuple[str, ...], code: int
) -> None:
    done = subprocess.run(
        with_closed(numbers, *words), env=bare_environment(), capture_output=True, check=False
    )

    assert done.returncode == code
    assert b"Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("numbers", CLOSED, ids=str)
async def test_the_proxy_serves_with_closed_descriptors(
    numbers: tuple[int, ...], emulator: Emulator, tmp_path: Path
) -> None:
    admin = tmp_path / "admin.sock"
    env = environment(emulator, tmp_path, ICR_PROXY_ADMIN__BIND=f"unix:{admin}")
    process = await asyncio.create_subprocess_exec(*with_closed(numbers, "run"), env=env)
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            ready = ["wait", "--admin", f"unix:{admin}"]
            assert (await run_to_end(ready, bare_environment()))[0] == 0
        opened = opened_by(process.pid, numbers)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(GUARD_SECONDS):
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()

    assert opened == ["/dev/null"] * len(numbers)
    assert code == 0


def opened_by(pid: int, numbers: tuple[int, ...]) -> list[str]:
    return [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in numbers]


# -- signals --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def hangups_as_usual() -> Iterator[None]:
    """Let children get SIGHUP, also where these tests run under `nohup`, which children inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def slow_name(tmp_path: Path) -> Path:
    """Give a pipe into which nobody writes: who reads it is neither quick nor done."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def waiting_for(pipe: Path) -> dict[str, str]:
    """Give the variables of a proxy that has not started before ten seconds are over."""
    return bare_environment(ICR_PROXY_APP__ID="app", ICR_PROXY_APP__PRIVATE_KEY_FILE=str(pipe))


INJECTOR = ["injector", "--listen", "127.0.0.1:0", "--self-signed", "--for", "localhost"]


async def starting(words: list[str], env: dict[str, str]) -> asyncio.subprocess.Process:
    """Start a service; give it when it handles signals and has not come any further."""
    process = await start(words, env)
    await until_caught(process.pid, signal.SIGTERM)
    return process


async def until_caught(pid: int, number: signal.Signals) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while not catches(pid, number):  # noqa: ASYNC110  # a process tells nobody
            await asyncio.sleep(0.001)


def catches(pid: int, number: signal.Signals) -> bool:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


async def only_child(pid: int) -> int:
    """Give the child of a process as soon as there is one."""
    while not (found := children_of(pid)):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    return found[0]


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(each) for each in text.split()]


async def ended(process: asyncio.subprocess.Process) -> tuple[int, bytes]:
    """Wait for the end; give exit code and what was said."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    assert time.monotonic() - began < QUICK_SECONDS
    return process.returncode, out + (err or b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_proxy_that_still_reads_its_files(
    number: signal.Signals, slow_name: Path
) -> None:
    process = await start(["run"], waiting_for(slow_name))
    await asyncio.sleep(1.0)  # by now it waits for the pipe, which takes ten seconds

    process.send_signal(number)

    assert await ended(process) == (0, b"")


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (["run"], signal.SIGTERM, 0),
        (["run"], signal.SIGINT, 0),
        (INJECTOR, signal.SIGTERM, 0),
        (INJECTOR, signal.SIGINT, 0),
        (["emulator", "--port", "0"], signal.SIGTERM, 0),
        (["emulator", "--port", "0"], signal.SIGINT, 0),
        (["emulator", "--port", "0"], signal.SIGHUP, 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
async def test_a_signal_during_the_imports_ends_the_process(
    words: list[str], number: signal.Signals, code: int, slow_name: Path
) -> None:
    process = await starting(words, waiting_for(slow_name))

    process.send_signal(number)

    found, said = await ended(process)

    assert (found, b"Traceback" in said) == (code, False)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)],
)
async def test_a_signal_during_the_imports_of_another_command_is_no_traceback(
    number: signal.Signals, code: int
) -> None:
    imports = "bootstrap.prepare(['check']); print('x', flush=True); import time; time.sleep(60)"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"from icr_proxy.runtime import bootstrap; {imports}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()

    process.send_signal(number)

    assert await ended(process) == (code, b"")


async def test_a_hangup_during_the_start_is_a_reload_after_it(
    emulator: Emulator, tmp_path: Path
) -> None:
    process = await starting(["run"], environment(emulator, tmp_path))
    process.send_signal(signal.SIGHUP)

    assert process.stdout is not None
    lines: list[bytes] = []
    async with asyncio.timeout(GUARD_SECONDS):
        while not lines or b"config.reloaded" not in lines[-1]:
            lines.append(await process.stdout.readline())
            assert lines[-1], lines
    process.send_signal(signal.SIGTERM)

    assert (await ended(process))[0] == 0
    assert any(b"proxy.ready" in each for each in lines[:-1])


async def test_no_moment_of_the_start_loses_a_signal(emulator: Emulator, tmp_path: Path) -> None:
    env = environment(emulator, tmp_path)
    codes = []
    for moment in range(12):
        process = await starting(["run"], env)
        await asyncio.sleep(moment * 0.05)
        process.send_signal(signal.SIGTERM)
        code, said = await ended(process)
        codes.append(code)
        assert b"Traceback" not in said

    assert codes == [0] * 12


PID_1 = ["unshare", "--pid", "--fork", "--kill-child=SIGKILL"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (["run"], signal.SIGTERM, 0),
        (INJECTOR, signal.SIGTERM, 0),
        (["emulator", "--port", "0"], signal.SIGTERM, 0),
        (["wait"], signal.SIGTERM, 143),
        (["wait"], signal.SIGHUP, 129),
        (["demo"], signal.SIGTERM, 143),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
async def test_init_of_a_container_is_ended_by_a_signal(
    words: list[str], number: signal.Signals, code: int, slow_name: Path
) -> None:
    """The kernel drops signals to PID 1 that have no handler."""
    outer = await asyncio.create_subprocess_exec(
        *PID_1,
        *PROGRAM,
        *words,
        env=waiting_for(slow_name),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    inner = await only_child(outer.pid)
    await until_caught(inner, number)

    os.kill(inner, number)

    assert (await ended(outer))[0] == code


BLOCKED = ["env", "--block-signal=TERM,INT,HUP"]
"""As the entry point of the image begins."""


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
@pytest.mark.parametrize("pause", [0.0, 0.01, 0.03, 0.1])
@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (["run"], signal.SIGTERM, 0),
        (["emulator", "--port", "0"], signal.SIGINT, 0),
        (["wait"], signal.SIGTERM, 143),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
async def test_the_image_loses_no_signal_at_any_moment(
    words: list[str], number: signal.Signals, code: int, pause: float, slow_name: Path
) -> None:
    """Python has no handler in its first hundredths of a second, but blocked signals wait."""
    outer = await asyncio.create_subprocess_exec(
        *PID_1,
        *BLOCKED,
        *PROGRAM,
        *words,
        env=waiting_for(slow_name),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    inner = await only_child(outer.pid)
    async with asyncio.timeout(GUARD_SECONDS):
        while not (blocks(inner, number) or catches(inner, signal.SIGTERM)):  # noqa: ASYNC110
            await asyncio.sleep(0)
    await asyncio.sleep(pause)

    os.kill(inner, number)

    assert (await ended(outer))[0] == code


def blocks(pid: int, number: signal.Signals) -> bool:
    """Tell whether the program blocks a signal; `unshare` does, too, until it has become it."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    if text.startswith("Name:\tunshare\n"):
        return False
    line = next(line for line in text.splitlines() if line.startswith("SigBlk"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_the_image_begins_so() -> None:
    image = (Path(__file__).parents[3] / "Dockerfile").read_text(encoding="utf-8")

    assert f"ENTRYPOINT {json.dumps([*BLOCKED, 'icr-proxy'])}" in image


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_that_were_blocked_are_not_for_ever(
    number: signal.Signals, emulator: Emulator, tmp_path: Path
) -> None:
    env = environment(emulator, tmp_path)
    process = await asyncio.create_subprocess_exec(
        *BLOCKED, *PROGRAM, "run", env=env, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(GUARD_SECONDS):
        while b"proxy.ready" not in await process.stdout.readline():
            pass
    process.send_signal(number)

    assert (await ended(process))[0] == 0


# -- names that are not resolved ------------------------------------------------------------------

HANGING_NAMES = """
import socket, sys, time
numeric = socket.getaddrinfo
def look_up(host, *more, flags=0, **named):
    if host == "slow.test" and not flags & socket.AI_NUMERICHOST:
        time.sleep(60)
    return numeric(host, *more, flags=flags, **named)
socket.getaddrinfo = look_up
from icr_proxy.__main__ import main
sys.argv[1:] = {words!r}
main()
"""


async def hanging(words: list[str], env: dict[str, str]) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HANGING_NAMES.format(words=words),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(GUARD_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out + err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["health", "--admin", "slow.test:9090"], b"its name was not resolved in time"),
        (["wait", "--admin", "slow.test:9090", "--timeout", "1"], b"not ready after 1 s"),
        (["quit", "--admin", "slow.test:9090"], b"its name was not resolved in time"),
        (["doctor"], b"the name slow.test is not resolved"),
        (["installations"], b"icr-proxy doctor"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
async def test_a_command_does_not_wait_for_a_resolver_that_hangs(
    words: list[str], told: bytes, emulator: Emulator, tmp_path: Path
) -> None:
    env = environment(
        emulator,
        tmp_path,
        ICR_PROXY_UPSTREAM__BASE_URL="http://slow.test:9",
        ICR_PROXY_UPSTREAM__ALLOW_PLAIN="true",
        ICR_PROXY_UPSTREAM__TIMEOUTS__CONNECT="500ms",
        ICR_PROXY_TOKENS__MINT_TIMEOUT="1s",
    )

    code, said = await hanging(words, env)

    assert code == 1
    assert told in said


# -- characters -----------------------------------------------------------------------------------

ENCODINGS = ("latin-1", "ascii", "ascii:strict", "cp1252", "cp437", "koi8-r", "utf-8:strict")


ALL_HELP = [(line, "latin-1") for line in ["", *command_lines()]]
SOME_HELP = [("run", encoding) for encoding in ENCODINGS[1:]]


@pytest.mark.parametrize(("line", "encoding"), ALL_HELP + SOME_HELP)
def test_every_help_is_shown_in_every_encoding(line: str, encoding: str) -> None:
    env = bare_environment(PYTHONIOENCODING=encoding)

    done = subprocess.run(
        [*PROGRAM, *line.split(), "--help"], env=env, capture_output=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Usage:" in done.stdout


COMPLAINTS: list[list[str | bytes]] = [
    ["run", "--config", b"/no/\xff\xfe.yaml"],
    ["run", "--app-id", b"\xff", "--private-key-file", b"/no/\xe9"],
    ["check", "--upstream", "http://…\u2603"],
    ["explain", "GET", b"/\xff", "-H", b"X: \xff"],
    ["explain", b"\xff", "/x"],
    ["audit", "verify", b"/no/\xff"],
    ["audit", "report", b"/no/\xff"],
    ["keys", "fingerprint", "/no/\u2603"],
    ["health", "--admin", b"\xff:1"],
    ["health", "--admin", "\u2603:1"],
    ["emulator", "--host", b"\xff"],
    ["emulator", "--port", "\u2603"],
    ["injector", "--listen", b"\xff"],
    ["doctor", "--installation", b"\xff"],
    [b"\xff"],
    ["--\u2603"],
]
# All of them in the encoding that can do least; those that differ in what they quote in the others.
SHOWN = [
    *((words, "ascii") for words in COMPLAINTS),
    *((words, encoding) for words in COMPLAINTS[:4] for encoding in ("latin-1", "utf-8:strict")),
]


@pytest.mark.parametrize(("words", "encoding"), SHOWN, ids=repr)
def test_every_complaint_is_shown_in_every_encoding(
    words: list[str | bytes], encoding: str
) -> None:
    """Python hands over bytes of arguments that are no text as surrogates."""
    env = bare_environment(PYTHONIOENCODING=encoding, PYTHONUTF8="1")

    done = subprocess.run([*PROGRAM, *words], env=env, capture_output=True, check=False)

    assert done.returncode in (1, 2)
    assert b"Traceback" not in done.stderr
    assert done.stderr or done.stdout


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ready \u2026 now", b"ready ... now"),
        ("\u201cso\u201d \u2013 it\u2019s", b'"so" - it\'s'),
        ("caf\u00e9", b"caf\xe9"),
        ("\u2603\U0001f332", b"??"),
        ("/\udcff", b"/?"),
    ],
)
def test_characters_are_approximated(text: str, shown: bytes) -> None:
    code = f"from icr_proxy.runtime import bootstrap; bootstrap.prepare([]); print({text!r})"
    env = bare_environment(PYTHONIOENCODING="latin-1")

    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)

    assert done.stdout == shown + b"\n"


def test_what_cannot_be_read_is_not_approximated() -> None:
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")

    with pytest.raises(UnicodeDecodeError):
        approximate(error)


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["version"], ["run", "--help"], ["check", "--schema"]])
def test_output_that_cannot_be_written_is_a_failure(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run([*PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, check=False)

    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_traceback() -> None:
    with ExitStack() as stack:
        reader, writer = os.pipe()
        stack.callback(os.close, writer)
        os.close(reader)
        done = subprocess.run(
            [*PROGRAM, "check", "--schema"], stdout=writer, stderr=subprocess.PIPE, check=False
        )

    assert (done.returncode, done.stderr) == (1, b"")


def test_the_names_of_commands_that_serve_are_right() -> None:
    from icr_proxy.runtime.bootstrap import RELOADED, SERVICES  # noqa: PLC0415

    assert RELOADED < SERVICES <= set(commands.list_commands(None))  # type: ignore[arg-type]

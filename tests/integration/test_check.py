"""`check` refuses what `run` refuses, with the same words and the same exit code."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.app_fixture import app_key_pem
from tests.support.certificate_authority import server_certificate
from tests.support.program import environment, program_before, run_to_end, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from icr_proxy.emulator.server import Emulator


# -- what may be wrong ----------------------------------------------------------------------------


def missing(folder: Path, _stack: ExitStack) -> str:
    return str(folder / "missing")


def no_parent(folder: Path, _stack: ExitStack) -> str:
    return str(folder / "missing" / "file")


def below_a_file(folder: Path, _stack: ExitStack) -> str:
    return str(folder / "app.pem" / "file")


def directory(folder: Path, _stack: ExitStack) -> str:
    (folder / "directory").mkdir()
    return str(folder / "directory")


def garbage(folder: Path, _stack: ExitStack) -> str:
    (folder / "garbage").write_text("garbage")
    return str(folder / "garbage")


def empty(folder: Path, _stack: ExitStack) -> str:
    (folder / "empty").write_text("")
    return str(folder / "empty")


def quoted(folder: Path, _stack: ExitStack) -> str:
    (folder / "quoted").write_text('"redis://127.0.0.1:1"')
    return str(folder / "quoted")


def circle(folder: Path, _stack: ExitStack) -> str:
    (folder / "circle").symlink_to("circle")
    return str(folder / "circle")


def open_directory(folder: Path, _stack: ExitStack) -> str:
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    return str(folder / "open")


def locked_directory(folder: Path, stack: ExitStack) -> str:
    (folder / "locked").mkdir(0o700)
    lock = stack.enter_context((folder / "locked" / "audit.lock").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)
    return str(folder / "locked")


def linked_lock(folder: Path, _stack: ExitStack) -> str:
    (folder / "linked").mkdir(0o700)
    (folder / "linked" / "audit.lock").symlink_to(folder / "app.pem")
    return str(folder / "linked")


def taken_port(_folder: Path, stack: ExitStack) -> str:
    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return f"127.0.0.1:{taken.getsockname()[1]}"


def taken_path(folder: Path, stack: ExitStack) -> str:
    # Paths of sockets are short, those of tests are not.
    path = f"/tmp/icr-{os.getpid()}-{abs(hash(folder))}.sock"
    taken = stack.enter_context(socket.socket(socket.AF_UNIX))
    taken.bind(path)
    taken.listen()
    stack.callback(os.unlink, path)
    return f"unix:{path}"


def fixed(text: str) -> Callable[[Path, ExitStack], str]:
    return lambda _folder, _stack: text


FOREIGN = fixed("203.0.113.7:18080")  # RFC 5737: nobody's
BREAKS: list[tuple[str, Callable[[Path, ExitStack], str]]] = [
    ("APP__PRIVATE_KEY_FILE", circle),
    ("APP__PRIVATE_KEYS_DIR", directory),
    ("APP__PRIVATE_KEY", fixed("garbage")),
    ("UPSTREAM__CA_FILE", garbage),
    ("UPSTREAM__BASE_URL", fixed("http://api.example")),
    ("UPSTREAM__ADDRESS", fixed("nowhere:port")),
    ("LISTENERS__0__TLS__CERT", missing),
    ("LISTENERS__0__TLS__KEY", garbage),
    ("LISTENERS__0__TLS__CLIENT_CA", directory),
    *((f"{place}__BIND", taken_port) for place in ("LISTENERS__0", "ADMIN", "WEBHOOKS")),
    ("LISTENERS__0__BIND", taken_path),
    ("LISTENERS__0__BIND", fixed("203.0.113.7:18080")),  # RFC 5737: nobody's
    ("ADMIN__BIND", fixed("no-such-name.invalid:18080")),
    ("ADMIN__BIND", fixed("unix:/no/such/directory/a.sock")),
    *(("ADMIN__TOKEN_FILE", each) for each in (no_parent, below_a_file, directory)),
    ("WEBHOOKS__SECRET_FILE", empty),
    ("TOKENS__SHARED_URL_FILE", missing),
    ("TOKENS__SHARED_URL_FILE", quoted),
    ("TOKENS__SHARED_KEY_FILE", garbage),
    ("TOKENS__SHARED_CA_FILE", garbage),
    *(
        ("AUDIT__DIRECTORY", each)
        for each in (no_parent, below_a_file, garbage, open_directory, locked_directory)
    ),
    ("AUDIT__DIRECTORY", linked_lock),
    ("AUDIT__KEY_FILE", garbage),
    ("TRACING__ENDPOINT", fixed("ftp://127.0.0.1")),
]


def below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def with_companions(env: dict[str, str], name: str, folder: Path) -> dict[str, str]:
    """Add what a key needs beside it to mean anything."""
    more: dict[str, str] = {}
    if name in {"APP__PRIVATE_KEYS_DIR", "APP__PRIVATE_KEY"}:
        env = {key: text for key, text in env.items() if key != "ICR_PROXY_APP__PRIVATE_KEY_FILE"}
    if name == "UPSTREAM__CA_FILE":
        more = {"UPSTREAM__BASE_URL": "https://127.0.0.1:9"}
    if name.startswith("LISTENERS__0__TLS"):
        cert, key = server_certificate().write(folder)
        more = {"LISTENERS__0__TLS__CERT": str(cert), "LISTENERS__0__TLS__KEY": str(key)}
    if name == "WEBHOOKS__BIND":
        more = {"WEBHOOKS__SECRET": "planted-secret", "WEBHOOKS__EXPOSED": "true"}
    if name == "WEBHOOKS__SECRET_FILE":
        more = {"WEBHOOKS__BIND": "127.0.0.1:0"}
    if name in ("TOKENS__SHARED_KEY_FILE", "TOKENS__SHARED_CA_FILE"):
        more = {"TOKENS__SHARED": "rediss://127.0.0.1:9"}
    if name == "AUDIT__KEY_FILE":
        more = {"AUDIT__DIRECTORY": str(folder / "trail")}
    if name == "LISTENERS__0__BIND":
        more = {"LISTENERS__0__EXPOSED": "true"}
    return env | {f"ICR_PROXY_{key}": text for key, text in more.items()}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        pytest.param(name, make, id=f"{name}-{getattr(make, '__name__', '')}-{at}")
        for at, (name, make) in enumerate(BREAKS)
    ],
)
async def test_check_says_what_run_says(
    emulator: Emulator,
    tmp_path: Path,
    name: str,
    make: Callable[[Path, ExitStack], str],
) -> None:
    env = with_companions(environment(emulator, tmp_path), name, tmp_path)
    with ExitStack() as stack:
        env[f"ICR_PROXY_{name}"] = make(tmp_path, stack)
        before = below(tmp_path)

        check = await run_to_end(["check"], env)
        after = below(tmp_path)  # before `run`, which makes the trail's directory
        run = await run_to_end(["run"], env)

    assert check[0] in (1, 2)
    assert (check[0], check[2]) == (run[0], run[2])
    assert "Traceback" not in check[2]
    assert after == before, "check left something behind"
    assert "planted" not in check[2]


# -- what is fine ---------------------------------------------------------------------------------


async def test_check_of_all_that_can_be_named_leaves_everything_as_it_was(
    emulator: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "audit.key").write_text("5a" * 32)
    (tmp_path / "secret").write_text("webhook-secret\n")
    for each in ("audit.key", "secret"):
        (tmp_path / each).chmod(0o600)
    more = {
        "ICR_PROXY_ADMIN__TOKEN_FILE": str(tmp_path / "token"),
        "ICR_PROXY_AUDIT__DIRECTORY": str(tmp_path / "trail"),
        "ICR_PROXY_AUDIT__KEY_FILE": str(tmp_path / "audit.key"),
        "ICR_PROXY_WEBHOOKS__BIND": "127.0.0.1:0",
        "ICR_PROXY_WEBHOOKS__SECRET_FILE": str(tmp_path / "secret"),
        "ICR_PROXY_LISTENERS__1__BIND": "systemd:extra",
    }
    env = environment(emulator, tmp_path, **more)
    before = below(tmp_path)

    code, _, err = await run_to_end(["check"], env)

    assert (code, err) == (0, "Warning: systemd:extra is for systemd to open: not tried\n")
    assert below(tmp_path) == before


async def test_check_beside_the_running_proxy_warns_of_what_is_in_use(
    emulator: Emulator, tmp_path: Path
) -> None:
    """As in `ExecReload=`: what is taken is most likely that proxy's."""
    more = {"ICR_PROXY_AUDIT__DIRECTORY": str(tmp_path / "trail")}
    async with program_before(emulator, tmp_path, **more) as program:
        binds = {
            "ICR_PROXY_LISTENERS__0__BIND": program.url.removeprefix("http://"),
            "ICR_PROXY_ADMIN__BIND": program.admin,
        }
        env = environment(emulator, tmp_path, **more, **binds)
        beside = await run_to_end(["check"], env)
        elsewhere = await run_to_end(["check"], env | {"ICR_PROXY_ADMIN__BIND": "127.0.0.1:0"})

    assert beside[0] == 0
    assert beside[2].count("Address already in use") == 2
    assert beside[2].count("(Taken for the proxy's that runs at admin.bind.)") == 3
    assert elsewhere[0] == 2
    assert "is in use by process" in elsewhere[2]


async def test_check_reads_a_key_from_a_pipe_once(emulator: Emulator, tmp_path: Path) -> None:
    env = environment(emulator, tmp_path)
    (tmp_path / "app.pem").unlink()
    os.mkfifo(tmp_path / "app.pem")

    process = await start(["check"], env)
    await asyncio.to_thread((tmp_path / "app.pem").write_text, app_key_pem())
    out, err = await process.communicate()

    assert (process.returncode, err) == (0, b"")
    assert b"The configuration is good. Key SHA256:" in out

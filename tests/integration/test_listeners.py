"""The doors of the real program, with curl as the caller."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import stat
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.support.app_fixture import TAG, Visit, ok, scripted_upstream
from tests.support.certificate_authority import authority, issue, server_certificate
from tests.support.program import (
    GUARD_SECONDS,
    Program,
    environment,
    program_before,
    program_passed,
    run_to_end,
    start,
)

if TYPE_CHECKING:
    from pathlib import Path

    from icr_proxy.emulator.server import Emulator
    from tests.support.certificate_authority import Issued


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


# -- both families --------------------------------------------------------------------------------


async def test_a_star_serves_callers_of_both_families(emulator: Emulator, tmp_path: Path) -> None:
    variables = {
        "ICR_PROXY_LISTENERS__0__BIND": "*:0",
        "ICR_PROXY_LISTENERS__0__EXPOSED": "true",
        "ICR_PROXY_ADMIN__BIND": "*:0",
    }
    async with program_before(emulator, tmp_path, **variables) as program:
        port = program.port
        served = [
            await curl(emulator, f"http://{host}:{port}/projects")
            for host in ("127.0.0.1", "[::1]")
        ]
        admin = program.admin.rpartition(":")[2]
        ready = [
            await curl(emulator, f"http://{host}:{admin}/readyz") for host in ("127.0.0.1", "[::1]")
        ]

    assert served == ready == [(0, "200"), (0, "200")]


async def test_a_star_needs_the_word_as_any_reachable_address_does(
    emulator: Emulator, tmp_path: Path
) -> None:
    env = environment(emulator, tmp_path, ICR_PROXY_LISTENERS__0__BIND="*:0")

    code, _, err = await run_to_end(["run"], env)

    assert code == 2
    assert '"*:0" of listeners[0].bind can be reached from other machines' in err


# -- Unix sockets ---------------------------------------------------------------------------------


async def test_a_unix_socket_serves_and_goes_with_the_program(
    emulator: Emulator, tmp_path: Path
) -> None:
    path, admin = tmp_path / "icr.sock", tmp_path / "admin.sock"
    variables = {
        "ICR_PROXY_LISTENERS__0__BIND": f"unix:{path}",
        "ICR_PROXY_LISTENERS__0__MODE": "0660",
        "ICR_PROXY_LISTENERS__0__OWNER": f"{os.getuid()}:{os.getgid()}",
        "ICR_PROXY_ADMIN__BIND": f"unix:{admin}",
    }
    async with program_before(emulator, tmp_path, **variables) as program:
        mode = stat.S_IMODE(path.stat().st_mode)
        served = await curl(emulator, "--unix-socket", str(path), "http://localhost/projects")
        rebound = await curl(emulator, "--unix-socket", str(path), "http://evil.example/projects")
        env = environment(emulator, tmp_path, **variables)
        asked = [await run_to_end(words, env) for words in (["health", "--ready"], ["wait"])]
        second = await run_to_end(["run"], env | {"ICR_PROXY_ADMIN__BIND": "127.0.0.1:0"})
        program.process.send_signal(signal.SIGTERM)
        code = await program.end()

    assert mode == 0o660
    assert served == (0, "200")
    assert rebound == (0, "421")
    assert [each[0] for each in asked] == [0, 0]
    assert second[0] == 1
    assert f"cannot listen on unix:{path}: another program is using it" in second[2]
    assert code == 0
    assert not path.exists()
    assert not admin.exists()
    peer = next(line["peer"] for line in program.lines if line["event"] == "request.done")
    assert peer.startswith(f"unix:uid={os.getuid()},pid=")


async def test_a_socket_that_a_crash_left_behind_is_replaced(
    emulator: Emulator, tmp_path: Path
) -> None:
    path = tmp_path / "icr.sock"
    variables = {"ICR_PROXY_LISTENERS__0__BIND": f"unix:{path}"}
    async with program_before(emulator, tmp_path, **variables) as first:
        first.process.kill()
        await first.process.wait()
        left = path.exists()
    async with program_before(emulator, tmp_path, **variables):
        served = await curl(emulator, "--unix-socket", str(path), "http://localhost/projects")

    assert left
    assert served == (0, "200")


# -- systemd --------------------------------------------------------------------------------------


async def test_sockets_of_systemd_are_served_and_left_to_it(
    emulator: Emulator, tmp_path: Path
) -> None:
    path = tmp_path / "passed.sock"
    variables = {
        "LISTEN_FDNAMES": "web:local",
        "ICR_PROXY_LISTENERS__0__BIND": "systemd:web",
        "ICR_PROXY_LISTENERS__1__BIND": "systemd:1",
    }
    with socket.create_server(("127.0.0.1", 0)) as web, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(path))
        local.listen()
        address = f"127.0.0.1:{web.getsockname()[1]}"
        for _ in range(2):  # a restart, between which callers wait and are not refused
            async with program_passed([web, local], emulator, tmp_path, **variables) as program:
                served = [
                    await curl(emulator, f"http://{address}/projects"),
                    await curl(emulator, "--unix-socket", str(path), "http://localhost/projects"),
                ]
                program.process.send_signal(signal.SIGTERM)
                await program.end()
            [ready] = [line for line in program.lines if line["event"] == "proxy.ready"]
            assert ready["listeners"] == [address, f"unix:{path}"]
            assert served == [(0, "200"), (0, "200")]
            assert path.exists()
            with socket.create_connection(web.getsockname(), timeout=5):
                pass  # the kernel takes it, for the next one to serve


async def test_a_socket_of_systemd_that_others_can_reach_needs_the_word_for_it(
    emulator: Emulator, tmp_path: Path
) -> None:
    variables = {"ICR_PROXY_LISTENERS__0__BIND": "systemd:0"}
    with socket.create_server(("0.0.0.0", 0)) as web:  # that is the point
        env = environment(emulator, tmp_path, **variables)
        process = await start(["run"], env, passing=[web])
        async with asyncio.timeout(GUARD_SECONDS):
            _, err = await process.communicate()
        meant = variables | {"ICR_PROXY_LISTENERS__0__EXPOSED": "true"}
        async with program_passed([web], emulator, tmp_path, **meant):
            port = web.getsockname()[1]
            served = await curl(emulator, f"http://127.0.0.1:{port}/projects")

    assert process.returncode == 1
    assert "which can be reached from other machines" in err.decode()
    assert served == (0, "200")


async def test_without_systemd_its_socket_is_missing(emulator: Emulator, tmp_path: Path) -> None:
    env = environment(emulator, tmp_path, ICR_PROXY_LISTENERS__0__BIND="systemd:web")

    code, _, err = await run_to_end(["run"], env)

    assert code == 1
    assert "cannot listen on systemd:web: no socket was passed" in err


# -- behind a load balancer -----------------------------------------------------------------------


async def test_behind_a_load_balancer_the_log_has_the_callers_address(
    emulator: Emulator, tmp_path: Path
) -> None:
    variables = with_tls(tmp_path) | {
        "ICR_PROXY_LISTENERS__0__PROXY_PROTOCOL": "true",
        "ICR_PROXY_LISTENERS__0__PROXY_PROTOCOL_FROM": "127.0.0.0/8",
        "ICR_PROXY_LISTENERS__1__BIND": "127.0.0.1:0",
        "ICR_PROXY_LISTENERS__1__PROXY_PROTOCOL": "true",
        "ICR_PROXY_LISTENERS__1__PROXY_PROTOCOL_FROM": "192.0.2.0/24",
    }
    trust = ("--cacert", str(tmp_path / "ca.crt"))
    async with program_before(emulator, tmp_path, **variables) as program:
        fronted = await curl(emulator, *trust, "--haproxy-protocol", secure(program))
        done = await program.until("request.done")
        bare = await curl(emulator, *trust, secure(program))
        ready = next(line for line in program.lines if line["event"] == "proxy.ready")
        other = f"http://{ready['listeners'][1]}/projects"
        distrusted = await curl(emulator, "--haproxy-protocol", other)
        refused = [(await program.until("proxy_protocol.refused"))["reason"] for _ in range(2)]

    assert fronted == (0, "200")
    assert done["peer"] == "127.0.0.1"  # curl speaks for itself
    assert bare[1] == distrusted[1] == "000"
    assert refused == ["invalid", "untrusted"]


# -- tools with a hard-wired address --------------------------------------------------------------

# A tool on a machine whose /etc/hosts sends the API's name to the proxy.
TOOL = """
import socket, sys
import requests
port, ca, tag = sys.argv[1:]
ask = socket.getaddrinfo
def resolve(host, *rest, **more):
    assert host == "api.carbonregistry.com"
    return ask("127.0.0.1", port, *rest[1:], **more)
socket.getaddrinfo = resolve
headers = {"X-ICR-Installation-Id": tag}
answer = requests.get("https://api.carbonregistry.com/projects", headers=headers, verify=ca)
print(answer.status_code, answer.text)
"""


async def test_a_tool_with_a_hard_wired_address_reaches_the_api_through_the_proxy(
    emulator: Emulator, tmp_path: Path
) -> None:
    name = "api.carbonregistry.com"
    folder = tmp_path / "tls"
    made = await run_to_end(["keys", "tls", "--for", name, "--out", str(folder)], dict(os.environ))
    (tmp_path / "real-ca.crt").write_bytes(authority().cert_pem)

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok(b"[]"))

    real = issue(name, by=authority(), names=(x509.DNSName(name),))
    async with scripted_upstream(script, tls=serving(real, tmp_path)) as api:
        variables = {
            "ICR_PROXY_UPSTREAM__BASE_URL": f"https://{name}",
            "ICR_PROXY_UPSTREAM__ADDRESS": api.url.removeprefix("https://"),
            "ICR_PROXY_UPSTREAM__CA_FILE": str(tmp_path / "real-ca.crt"),
            "ICR_PROXY_LISTENERS__0__TLS__CERT": str(folder / "tls.crt"),
            "ICR_PROXY_LISTENERS__0__TLS__KEY": str(folder / "tls.key"),
        }
        async with program_before(emulator, tmp_path, **variables) as program:
            by_curl = await curl(
                emulator,
                "--connect-to", f"{name}:443:127.0.0.1:{program.port}",
                "--cacert", str(folder / "ca.crt"),
                f"https://{name}/projects",
            )  # fmt: skip
            tool = await asyncio.create_subprocess_exec(
                sys.executable, "-c", TOOL, str(program.port), str(folder / "ca.crt"), "inst-1",
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(GUARD_SECONDS):
                said, _ = await tool.communicate()

    assert made[0] == 0
    assert by_curl == (0, "200")
    assert said.decode() == "200 []\n"
    assert all(b"\r\nHost: api.carbonregistry.com\r\n" in head for head in api.heads)
    assert len(api.heads) == 2


def serving(issued: Issued, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issued.write(folder, "real"))
    return context


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_name_that_leads_back_to_the_proxy_is_told(
    emulator: Emulator, tmp_path: Path, *, encrypted: bool
) -> None:
    """The hosts entry that brings the tool here is read by the proxy as well."""
    with socket.create_server(("127.0.0.1", 0)) as web:
        port = web.getsockname()[1]
        scheme = "https" if encrypted else "http"
        variables = {
            "ICR_PROXY_LISTENERS__0__BIND": "systemd:0",
            "ICR_PROXY_UPSTREAM__BASE_URL": f"{scheme}://localhost:{port}",
        } | (with_tls(tmp_path) if encrypted else {})
        trust = ["--cacert", str(tmp_path / "ca.crt")] if encrypted else []
        async with program_passed([web], emulator, tmp_path, **variables) as program:
            answer = await curl(emulator, *trust, f"{scheme}://localhost:{port}/projects")
            done = await program.until("request.done")

    assert answer == (0, "502")
    assert done["code"] == "upstream-loop"
    assert len([line for line in program.lines if line["event"] == "request.done"]) == 1

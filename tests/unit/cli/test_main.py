"""Arguments and exit codes, with the real program."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from icr_proxy import __version__
from icr_proxy.cli.main import ELSEWHERE, commands
from tests.support.app_fixture import app_key_pem
from tests.support.certificate_authority import server_certificate
from tests.support.program import environment, is_proxy, program_run, run_to_end

if TYPE_CHECKING:
    from icr_proxy.emulator.server import Emulator

PLANTED = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC-planted"


def bare_environment(**more: str) -> dict[str, str]:
    """Give variables without any of ours, but for binds: `check` tries them, as `run` does."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ICR_") and not is_proxy(k)}
    binds = {
        "ICR_PROXY_LISTENERS__0__BIND": "127.0.0.1:0",
        "ICR_PROXY_ADMIN__BIND": "127.0.0.1:0",
    }
    return clean | binds | more


def command_lines() -> list[str]:
    """Give every command, those of groups with the group's name before."""
    return [line for line, _ in commands_below(commands)]


def commands_below(group: click.Group, prefix: str = "") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += commands_below(command, f"{prefix}{name} ")
        else:
            found.append((f"{prefix}{name}", command))
    return found


@pytest.mark.parametrize("line", command_lines())
def test_every_command_has_help(line: str) -> None:
    result = CliRunner().invoke(commands, [*line.split(), "--help"])

    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert len(dict(commands_below(commands))[line].get_short_help_str(200)) > 10


@pytest.mark.parametrize("line", [line for line in command_lines() if line != "version"])
def test_help_shows_examples(line: str) -> None:
    result = CliRunner().invoke(commands, [*line.split(), "--help"])

    assert f"icr-proxy {line}" in result.output.partition("Examples:")[2]


def test_a_group_says_what_it_has() -> None:
    result = CliRunner().invoke(commands, ["keys", "--help"])

    assert {"generate", "fingerprint"} <= set(result.output.split())


async def test_serving_imports_no_command_of_another_kind() -> None:
    """A sidecar pays for every import."""
    code = (
        "import sys, icr_proxy.cli.main, icr_proxy.runtime.process;"
        " print([n for n in sys.modules if n[:10]=='icr_proxy.'])"
    )

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()

    loaded = out.decode()
    assert "'icr_proxy.forwarding.handler'" in loaded
    for module in (
        *ELSEWHERE.values(),
        "icr_proxy.doctor",
        "icr_proxy.forwarding.explain",
        "icr_proxy.credentials.key_tools",
    ):
        assert f"'{module}" not in loaded


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(commands, ["version"]).output == f"{__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(commands, ["rnu"]).exit_code == 2


def test_the_schema_is_json() -> None:
    result = CliRunner().invoke(commands, ["check", "--schema"])

    assert json.loads(result.output)["properties"]["listeners"]


async def test_check_tells_every_problem_at_once_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("tokens: {refresh_margin: 5 minutes}\nlimts: {}\n")
    env = bare_environment(
        ICR_PROXY_APP__PRIVATE_KEY=PLANTED, ICR_PROXY_LISTENERS__0__BIND="0.0.0.0:8080"
    )

    code, out, err = await run_to_end(["check", "--config", str(file)], env)

    assert code == 2
    assert "tokens.refresh_margin" in err
    assert "limits" in err
    assert "app.id" in err
    assert "exposed" in err
    assert PLANTED not in out + err
    assert "Traceback" not in err


async def test_check_of_a_good_configuration_shows_it_with_the_keys_fingerprint(
    emulator: Emulator, tmp_path: Path
) -> None:
    env = environment(emulator, tmp_path)

    code, out, err = await run_to_end(["check"], env)

    assert (code, err) == (0, "")
    assert "The configuration is good. Key SHA256:" in out
    assert f"app.id: {emulator.app_id}" in out
    assert "PRIVATE KEY" not in out


async def test_check_of_a_key_that_is_none_says_what_was_found() -> None:
    env = bare_environment(ICR_PROXY_APP__ID="a", ICR_PROXY_APP__PRIVATE_KEY=PLANTED)

    code, out, err = await run_to_end(["check"], env)

    assert code == 2
    assert "app.private_key holds no PEM block" in err
    assert "an RSA private key as PEM" in err
    assert PLANTED not in out + err


async def test_check_of_a_directory_of_keys_names_them_all_and_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text(app_key_pem())
    (tmp_path / "b.pem").write_text("rubbish")
    env = bare_environment(ICR_PROXY_APP__ID="a", ICR_PROXY_APP__PRIVATE_KEYS_DIR=str(tmp_path))

    code, out, err = await run_to_end(["check"], env)

    assert code == 0
    assert "The configuration is good. Key SHA256:" in out
    assert "Warning: app.private_keys_dir" in err
    assert "b.pem holds no PEM block" in err


async def test_check_of_a_ca_file_that_is_none_says_so(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("hello")
    env = bare_environment(
        ICR_PROXY_APP__ID="a",
        ICR_PROXY_APP__PRIVATE_KEY=app_key_pem().replace("\n", "\\n"),
        ICR_PROXY_UPSTREAM__CA_FILE=str(wrong),
    )

    code, _, err = await run_to_end(["check"], env)

    assert code == 2
    assert "upstream.ca_file" in err


async def test_check_of_a_webhook_secret_that_is_none_says_so(tmp_path: Path) -> None:
    wrong = tmp_path / "secret"
    wrong.write_text("\n")
    env = bare_environment(
        ICR_PROXY_APP__ID="a",
        ICR_PROXY_APP__PRIVATE_KEY=app_key_pem().replace("\n", "\\n"),
        ICR_PROXY_WEBHOOKS__SECRET_FILE=str(wrong),
    )

    code, _, err = await run_to_end(["check"], env)

    assert code == 2
    assert f"webhooks.secret_file: {wrong} is empty" in err


async def test_run_without_configuration_names_what_is_missing() -> None:
    code, out, err = await run_to_end(["run"], bare_environment())

    assert code == 2
    assert out == ""
    assert "ICR_PROXY_APP__ID" in err
    assert "Traceback" not in err


async def test_an_admin_address_that_is_none_is_a_usage_error() -> None:
    code, _, err = await run_to_end(["health", "--admin", "nowhere"], bare_environment())

    assert code == 2
    assert "host:port" in err


async def test_the_emulator_says_so_when_its_port_is_taken(emulator: Emulator) -> None:
    port = emulator.base_url.rpartition(":")[2]

    code, _, err = await run_to_end(["emulator", "--port", port], bare_environment())

    assert code == 1
    assert "cannot start" in err


async def test_check_warns_of_what_run_warns_of(emulator: Emulator, tmp_path: Path) -> None:
    env = environment(emulator, tmp_path, HTTPS_PROXY="http://user:planted@proxy:3128")
    (tmp_path / "app.pem").chmod(0o644)

    code, _, err = await run_to_end(["check"], env)
    async with program_run(["run"], env) as program:
        await program.until("upstream.egress_proxy_unused")
    quiet = await run_to_end(["check"], env | {"NO_PROXY": "127.0.0.1"})

    assert code == 0
    assert f"Warning: app.private_key_file: {tmp_path / 'app.pem'} can be read by every" in err
    assert "Warning: HTTPS_PROXY=http://***@proxy:3128 in the environment is not used" in err
    told = {line["event"]: line for line in program.lines if line["level"] == "warning"}
    assert told["secret.exposed"]["mode"] == "0644"
    assert told["upstream.egress_proxy_unused"]["variables"] == [
        "HTTPS_PROXY=http://***@proxy:3128"
    ]
    assert "planted" not in err + str(program.lines)
    assert "HTTPS_PROXY" not in quiet[2]


async def test_check_reads_the_certificates_of_listeners(tmp_path: Path) -> None:
    cert, key = server_certificate().write(tmp_path)
    key.chmod(0o600)
    _, other = server_certificate(days=(-2, -1)).write(tmp_path, "old")
    env = bare_environment(
        ICR_PROXY_APP__ID="a",
        ICR_PROXY_APP__PRIVATE_KEY=app_key_pem(),
        ICR_PROXY_LISTENERS__0__TLS__CERT=str(cert),
        ICR_PROXY_LISTENERS__0__TLS__KEY=str(key),
    )
    expired = env | {
        "ICR_PROXY_LISTENERS__0__TLS__CERT": str(tmp_path / "old.crt"),
        "ICR_PROXY_LISTENERS__0__TLS__KEY": str(other),
    }
    mixed = env | {"ICR_PROXY_LISTENERS__0__TLS__KEY": str(other)}

    good, late, wrong = [await run_to_end(["check"], each) for each in (env, expired, mixed)]

    assert (good[0], good[2]) == (0, "")
    assert late[0] == 0
    assert "listeners[0].tls.cert: the certificate in" in late[2]
    assert "has expired" in late[2]
    assert wrong[0] == 2
    assert "listeners[0].tls.key:" in wrong[2]
    assert "is not the key of the certificate in" in wrong[2]


async def test_an_admin_port_that_only_systemd_knows_cannot_be_asked() -> None:
    code, _, err = await run_to_end(["health", "--admin", "systemd:admin"], bare_environment())

    assert code == 2
    assert "is known to systemd only" in err

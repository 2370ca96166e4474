"""`doctor`, `explain` and `installations`, with the real program."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from icr_proxy.cli.diagnose import show
from icr_proxy.doctor.findings import DoctorFinding
from icr_proxy.emulator.registry.credentials import new_private_key
from icr_proxy.emulator.server import Emulator
from tests.support.app_fixture import TAG
from tests.support.program import environment, program_before, run_to_end
from tests.support.tls_front import tls_before

# Tokens, keys, JWTs.
SECRET = re.compile(r"crs_[0-9a-f]|PRIVATE KEY|eyJ")


def first(emulator: Emulator) -> str:
    return next(iter(emulator.world.installations))


# -- doctor ---------------------------------------------------------------------------------------


async def test_doctor_of_a_healthy_setup_says_so_and_exits_with_0(
    emulator: Emulator, tmp_path: Path
) -> None:
    code, out, err = await run_to_end(["doctor"], environment(emulator, tmp_path))

    assert (code, err) == (0, "")
    assert out.endswith("17 ok, 0 warnings, 0 failures\n")
    assert "SHA256:" in out
    assert "revoked what was made here, 3 tokens" in out
    assert not SECRET.search(out)
    assert not emulator.world.tokens


async def test_doctor_json_is_one_document(emulator: Emulator, tmp_path: Path) -> None:
    code, out, _ = await run_to_end(["doctor", "--json"], environment(emulator, tmp_path))

    document = json.loads(out)
    assert code == 0
    assert document["ok"] is True
    assert [each["name"] for each in document["findings"]][:3] == [
        "configuration",
        "key",
        "egress proxy",
    ]
    assert not SECRET.search(out)


async def test_doctor_looks_at_the_audit_trail(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "anchor").write_text(json.dumps({"seq": 9, "hash": "a" * 64}) + "\n")
    env = environment(emulator, tmp_path, ICR_PROXY_AUDIT__DIRECTORY=str(tmp_path / "trail"))

    _, fine, _ = await run_to_end(["doctor"], env)
    anchored = env | {"ICR_PROXY_AUDIT__ANCHOR_FILE": str(tmp_path / "anchor")}
    code, out, _ = await run_to_end(["doctor"], anchored)

    assert re.search(r"^ok     audit trail ", fine, re.MULTILINE)
    assert code == 1
    assert re.search(r"^fail   audit trail .*ends with record 0", out, re.MULTILINE)
    assert not (tmp_path / "trail").exists()


async def test_doctor_of_an_unknown_authority_names_the_remedy(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with tls_before(emulator.base_url, tmp_path) as front:
        env = environment(emulator, tmp_path, ICR_PROXY_UPSTREAM__BASE_URL=front.url)
        code, out, err = await run_to_end(["doctor"], env)
        healed = await run_to_end(
            ["doctor"], env | {"ICR_PROXY_UPSTREAM__CA_FILE": str(front.ca_file)}
        )

    assert (code, err) == (1, "")
    assert re.search(r"^fail   TLS .*not trusted here.*Test Root$", out, re.MULTILINE)
    assert "→ if you trust it, name a PEM file with its certificate in upstream.ca_file" in out
    assert "skip   app JWT         needs TLS" in out
    assert healed[0] == 0


async def test_doctor_with_a_wrong_key_fails_and_shows_its_fingerprint(
    emulator: Emulator, tmp_path: Path
) -> None:
    env = environment(emulator, tmp_path)
    (tmp_path / "app.pem").write_text(new_private_key())

    code, out, _ = await run_to_end(["doctor", "--json"], env)

    states = {each["name"]: each["state"] for each in json.loads(out)["findings"]}
    assert code == 1
    assert (states["key"], states["app JWT"], states["token"]) == ("ok", "fail", "skip")
    assert not SECRET.search(out)


async def test_doctor_of_a_suspended_installation_fails(emulator: Emulator, tmp_path: Path) -> None:
    emulator.world.suspend(first(emulator))

    code, out, _ = await run_to_end(
        ["doctor", "--installation", first(emulator)], environment(emulator, tmp_path)
    )

    assert code == 1
    assert f"fail   token           {first(emulator)}: the API issues none for it" in out


async def test_doctor_warns_of_a_proxy_it_does_not_use(emulator: Emulator, tmp_path: Path) -> None:
    env = environment(emulator, tmp_path, HTTPS_PROXY="http://user:planted@proxy", NO_PROXY="")

    code, out, _ = await run_to_end(["doctor"], env)

    assert code == 0
    assert "warn   egress proxy" in out
    assert "planted" not in out


async def test_doctor_without_a_configuration_tells_all_problems_and_exits_with_2(
    tmp_path: Path,
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("limts: {}\n")

    code, out, _ = await run_to_end(["doctor", "--config", str(file)], {})
    as_json, document, _ = await run_to_end(["doctor", "--json", "--config", str(file)], {})

    assert code == as_json == 2
    assert "app.id: is required" in out
    assert "limts" in out
    assert "skip   DNS             needs configuration" in out
    assert json.loads(document)["ok"] is False


async def test_doctor_takes_no_installation_that_could_not_be_one(
    emulator: Emulator, tmp_path: Path
) -> None:
    code, _, err = await run_to_end(
        ["doctor", "--installation", "../x"], environment(emulator, tmp_path)
    )

    assert code == 2
    assert "1 to 64 letters" in err


def test_on_a_terminal_findings_are_wrapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")

    show(DoctorFinding("DNS", "ok", "a long name is resolved to " + "192.0.2.1, " * 9))

    assert len(capsys.readouterr().out.splitlines()) > 2


# -- installations --------------------------------------------------------------------------------


async def test_installations_are_listed(emulator: Emulator, tmp_path: Path) -> None:
    code, out, err = await run_to_end(["installations"], environment(emulator, tmp_path))

    assert (code, err) == (0, "")
    assert out.startswith(f"{first(emulator)}\n  organization  ")
    assert out.count("organization_info VIEW") == 3
    assert not SECRET.search(out)


async def test_installations_are_listed_as_json_by_a_clock_that_is_wrong(
    emulator: Emulator, tmp_path: Path
) -> None:
    emulator.world.shift_clock(-3600)

    code, out, _ = await run_to_end(["installations", "--json"], environment(emulator, tmp_path))

    assert code == 0
    assert [each["id"] for each in json.loads(out)] == list(emulator.world.installations)


async def test_no_installations_are_no_failure(emulator: Emulator, tmp_path: Path) -> None:
    emulator.world.installations.clear()

    code, out, err = await run_to_end(["installations"], environment(emulator, tmp_path))

    assert (code, out) == (0, "")
    assert "installed on no organization" in err


async def test_installations_of_an_api_that_is_not_there_point_to_the_doctor(
    emulator: Emulator, tmp_path: Path
) -> None:
    env = environment(emulator, tmp_path, ICR_PROXY_UPSTREAM__BASE_URL="http://127.0.0.1:1")

    code, _, err = await run_to_end(["installations"], env)

    assert code == 1
    assert "icr-proxy doctor" in err
    assert "Traceback" not in err


# -- explain --------------------------------------------------------------------------------------


async def test_explain_shows_the_way_of_a_request_and_sends_nothing(
    emulator: Emulator, tmp_path: Path
) -> None:
    words = ["explain", "GET", "/projects", "-H", f"{TAG}: i", "-H", "Cookie: planted"]

    code, out, err = await run_to_end(words, environment(emulator, tmp_path))

    assert (code, err) == (0, "")
    assert "operation     projects.list (reads)" in out
    assert "+ Authorization: Bearer crs_… (masked)" in out
    assert f"- {TAG}: i" in out
    assert "planted" not in out
    assert not SECRET.search(out)
    assert not emulator.world.requests


async def test_explain_of_a_refusal_exits_with_1(emulator: Emulator, tmp_path: Path) -> None:
    words = ["explain", "POST", "/v1/retire", "-H", f"{TAG}: i", "--read-only"]

    code, out, _ = await run_to_end(words, environment(emulator, tmp_path))

    assert code == 1
    assert "denied (rule read-only)" in out
    assert "Refused with 403 policy-denied" in out


async def test_explain_asks_a_running_proxy_for_the_state_of_the_token(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with program_before(emulator, tmp_path) as program:
        words = ["explain", "GET", "/projects", "-H", f"{TAG}: i", "--admin", program.admin]
        code, out, _ = await run_to_end([*words, "--json"], environment(emulator, tmp_path))

    assert code == 0
    assert json.loads(out)["token"]["sentence"].startswith("none at 127.0.0.1:")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["GET", "projects"], id="no path"),
        pytest.param(["GET", "/projects", "-H", "nonsense"], id="no header"),
        pytest.param(["GET", "/projects", "--listener", "127.0.0.1:9"], id="no such listener"),
        pytest.param(["GET"], id="no URL"),
    ],
)
async def test_explain_of_nonsense_is_a_usage_error(
    emulator: Emulator, tmp_path: Path, words: list[str]
) -> None:
    code, _, err = await run_to_end(["explain", *words], environment(emulator, tmp_path))

    assert code == 2
    assert "Usage:" in err

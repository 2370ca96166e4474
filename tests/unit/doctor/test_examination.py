"""The whole way of a credential, in front of a real emulator."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from icr_proxy.config.models import AppConfig, Config
from icr_proxy.doctor import api_checks, examination
from icr_proxy.doctor.examination import STEPS, examine, not_examined
from icr_proxy.doctor.findings import Case, DoctorFinding, failed
from icr_proxy.doctor.session import AppSession
from icr_proxy.emulator.server import Emulator
from tests.support.app_fixture import Visit, app_key_pem, config_for, scripted_upstream
from tests.support.doctor_fixture import config_before, find, findings_of, states


async def test_a_healthy_way_is_gone_to_its_end_and_leaves_no_token_behind(
    emulator: Emulator,
) -> None:
    found = await findings_of(config_before(emulator))

    assert {each.state for each in found} == {"ok"}
    assert [each.name for each in found].count("token") == 3
    assert find(found, "clean-up").detail == "revoked what was made here, 3 tokens"
    assert not emulator.world.tokens


async def test_each_failure_has_a_remedy_and_what_needs_it_is_skipped() -> None:
    found = await findings_of(config_for("http://127.0.0.1:1"))

    assert find(found, "TCP").state == "fail"
    assert find(found, "TCP").remedy
    assert find(found, "TLS") == DoctorFinding("TLS", "skip", "needs TCP")
    assert states(found)["API version"] == "skip"
    assert states(found)["key"] == "ok"


async def test_a_bad_key_does_not_keep_the_network_from_being_looked_at(
    emulator: Emulator,
) -> None:
    found = await findings_of(config_before(emulator, key="no key at all"))

    assert states(found) | {"key": "fail", "clock": "ok", "app JWT": "skip"} == states(found)


async def test_tokens_are_revoked_even_if_the_examination_is_broken_off(
    emulator: Emulator,
) -> None:
    async with AppSession(config_before(emulator)) as session:
        case = Case(session=session, environ={})
        found: list[DoctorFinding] = []

        def tell(finding: DoctorFinding) -> None:
            found.append(finding)
            if finding.name == "permissions":
                raise KeyError(finding.name)

        with pytest.raises(KeyError):
            await examine(case, tell=tell)

    assert found[-1].name == "clean-up"
    assert not emulator.world.tokens


async def test_what_cannot_be_revoked_is_said(emulator: Emulator) -> None:
    async with AppSession(config_before(emulator)) as session:
        case = Case(
            session=session, environ={}, installation=next(iter(emulator.world.installations))
        )
        minted = [each async for each in api_checks.tokens(case)]
        await emulator.stop()
        left = [each async for each in api_checks.revoke(case)]

    assert minted[0].state == "ok"
    assert left[0].state == "warn"
    assert left[0].detail == "1 of 1 token made here not revoked"


async def test_a_clock_that_is_far_ahead_fails_but_the_rest_goes_on(emulator: Emulator) -> None:
    emulator.world.shift_clock(-300)

    found = await findings_of(config_before(emulator))

    assert find(found, "clock").state == "fail"
    assert "ahead of" in find(found, "clock").detail
    assert states(found) | {"app JWT": "ok", "token": "ok"} == states(found)


async def test_an_api_that_answers_nonsense_is_told_apart_from_one_that_refuses() -> None:
    async def babble(visit: Visit, _: bytes) -> None:
        await visit.say(b"220 mail.example ESMTP\r\n")

    async with scripted_upstream(babble) as upstream:
        found = await findings_of(config_for(upstream.url))

    assert find(found, "clock").state == "fail"
    assert find(found, "app JWT").state == "fail"


def test_without_a_configuration_nothing_is_examined() -> None:
    found = not_examined(("app.id: is required", "limts: is no key"))

    assert found[0].detail == "app.id: is required\nlimts: is no key"
    assert [each.state for each in found[1:]] == ["skip"] * len(STEPS)
    assert failed(found)


async def look(config: Config, **environ: str) -> tuple[DoctorFinding, DoctorFinding]:
    case = Case(session=AppSession(config), environ=environ)
    keys = [each async for each in examination.key(case)]
    egress = [each async for each in examination.egress(case)]
    return keys[0], egress[0]


def pkcs1() -> str:
    key = load_pem_private_key(app_key_pem().encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return pem.decode()


@pytest.mark.parametrize("form", ["PKCS#1", "PKCS#8"])
async def test_a_key_file_is_described(tmp_path: Path, form: str) -> None:
    file = tmp_path / "app.pem"
    file.write_text(pkcs1() if form == "PKCS#1" else app_key_pem())

    found, _ = await look(Config(app=AppConfig(id="a", private_key_file=file)))

    assert found.state == "ok"
    assert found.detail.startswith(f"RSA, 2048 bits, {form}, SHA256:")


async def test_a_key_from_a_pipe_is_described_without_waiting_for_it_twice(tmp_path: Path) -> None:
    file = tmp_path / "pipe"
    os.mkfifo(file)
    writer = threading.Thread(target=file.write_text, args=(app_key_pem(),))
    writer.start()

    found, _ = await look(Config(app=AppConfig(id="a", private_key_file=file)))
    writer.join()

    assert found.state == "ok"
    assert found.detail.startswith("RSA, 2048 bits, SHA256:")


async def test_a_key_file_that_is_missing_is_told_with_its_name(tmp_path: Path) -> None:
    config = Config(app=AppConfig(id="a", private_key_file=tmp_path / "app.pem"))

    found, _ = await look(config)

    assert found.state == "fail"
    assert "app.pem cannot be read: No such file" in found.detail
    assert found.remedy


async def test_a_key_from_the_environment_is_described() -> None:
    found, _ = await look(config_for("http://127.0.0.1:1"))

    assert found.detail.startswith("RSA, 2048 bits, PKCS#8, SHA256:")


async def keys_in(directory: Path) -> list[DoctorFinding]:
    config = Config(app=AppConfig(id="a", private_keys_dir=directory))
    case = Case(session=AppSession(config), environ={})
    return [each async for each in examination.key(case)]


async def test_every_key_of_a_directory_is_described_and_so_is_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text(app_key_pem())
    (tmp_path / "b.pem").write_text("rubbish")

    bad, good = await keys_in(tmp_path)

    assert (good.state, good.detail.partition("SHA256:")[0]) == ("ok", "RSA, 2048 bits, ")
    assert (bad.state, "b.pem holds no PEM block" in bad.detail) == ("warn", True)
    assert "remove that file" in bad.remedy


async def test_a_key_file_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    key = tmp_path / "app.pem"
    key.write_text(app_key_pem())
    case = Case(session=AppSession(Config(app=AppConfig(id="a", private_key_file=key))), environ={})
    found = []
    for mode in (0o600, 0o644):
        key.chmod(mode)
        found.append([each async for each in examination.secret_files(case)])

    (private, (open_to_all,)) = found
    assert private == []
    assert (open_to_all.name, open_to_all.state) == ("secret files", "warn")
    assert f"{key} can be read by every user of this machine (mode 0644)" in open_to_all.detail


async def test_a_directory_without_a_key_is_a_failure(tmp_path: Path) -> None:
    (found,) = await keys_in(tmp_path)

    assert found.state == "fail"
    assert "holds no usable key" in found.detail


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        pytest.param({}, "ok", id="none"),
        pytest.param({"HTTPS_PROXY": ""}, "ok", id="empty"),
        pytest.param({"HTTPS_PROXY": "http://user:pw@proxy"}, "warn", id="upper case"),
        pytest.param({"http_proxy": "http://proxy"}, "warn", id="lower case"),
        pytest.param({"ALL_PROXY": "x", "NO_PROXY": "a, .Example"}, "ok", id="exempt by domain"),
        pytest.param({"ALL_PROXY": "x", "no_proxy": "*"}, "ok", id="everything exempt"),
        pytest.param({"ALL_PROXY": "x", "no_proxy": "xample,"}, "warn", id="another name"),
    ],
)
async def test_an_egress_proxy_that_is_ignored_is_said(environ: dict[str, str], state: str) -> None:
    _, found = await look(config_for("https://api.example"), **environ)

    assert found.state == state
    assert "pw" not in found.detail

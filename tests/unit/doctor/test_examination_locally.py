"""What needs no network: the key, and a proxy on the way out."""

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
from icr_proxy.doctor import examination
from icr_proxy.doctor.findings import Case, Finding
from icr_proxy.doctor.session import AppSession
from tests.support.app_fixture import app_key_pem, config_for


async def look(config: Config, **environ: str) -> tuple[Finding, Finding]:
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


async def keys_in(directory: Path) -> list[Finding]:
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

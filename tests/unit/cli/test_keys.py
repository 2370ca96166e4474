"""`keys generate`, `keys fingerprint`, `keys caller` and `keys tls`."""

from __future__ import annotations

import re
import stat
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from icr_proxy.cli.main import commands
from icr_proxy.config.inbound_models import CallerConfig
from icr_proxy.config.loader import load
from icr_proxy.credentials.signing_key import load_key_file
from icr_proxy.policy.caller_auth import hash_of
from tests.support.app_fixture import app_key_pem


def keys(*words: str) -> Result:
    return CliRunner().invoke(commands, ["keys", *words])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "app.pem"


def test_a_new_key_is_one_that_the_proxy_can_use(out: Path) -> None:
    result = keys("generate", "--out", str(out))

    assert result.exit_code == 0
    assert result.stdout == f"{load_key_file(out).fingerprint}\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "PRIVATE KEY" not in result.output


def test_both_files_have_the_same_fingerprint(out: Path, tmp_path: Path) -> None:
    public = tmp_path / "app.pub"

    made = keys("generate", "--out", str(out), "--public-out", str(public), "--bits", "3072")
    shown = keys("fingerprint", str(public))

    assert load_key_file(out).bits == 3072
    assert shown.stdout.splitlines()[0] == made.stdout.strip()
    assert "public RSA key, 3072 bits" in shown.stderr


@pytest.mark.parametrize("there", ["app.pem", "app.pub"])
def test_what_is_there_is_not_replaced_unasked(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("old")
    words = ["generate", "--out", f"{tmp_path}/app.pem", "--public-out", f"{tmp_path}/app.pub"]

    result = keys(*words)

    assert result.exit_code == 2
    assert "--force" in result.output
    assert [each.name for each in tmp_path.iterdir()] == [there]


def test_force_replaces(out: Path) -> None:
    out.write_text("old")

    assert keys("generate", "--out", str(out), "--force").exit_code == 0
    assert load_key_file(out).bits == 2048


def test_one_file_for_both_halves_is_a_mistake(out: Path) -> None:
    assert keys("generate", "--out", str(out), "--public-out", str(out)).exit_code == 2
    assert not out.exists()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = keys("generate", "--out", str(tmp_path / "none" / "app.pem"))

    assert result.exit_code == 1
    assert "cannot be written: No such file" in result.output


def test_a_fingerprint_is_shown_in_both_forms_with_what_is_known_of_them(out: Path) -> None:
    out.write_text(app_key_pem())

    result = keys("fingerprint", str(out))

    first, second = result.stdout.splitlines()
    assert first == load_key_file(out).fingerprint
    assert len(second.split(":")) == 32
    assert "private RSA key, 2048 bits, PKCS#8" in result.stderr
    assert "not\ndocumented" in result.stderr


def test_what_is_no_key_fails(out: Path) -> None:
    out.write_text("hello")

    result = keys("fingerprint", str(out))

    assert result.exit_code == 1
    assert "no PEM block" in result.output
    assert "hello" not in result.output


def test_a_callers_key_is_printed_once_and_its_hash_in_what_the_file_needs(tmp_path: Path) -> None:
    result = keys("caller", "--name", "reporting")

    key = result.stdout.strip()
    lines = result.stderr[result.stderr.index("callers:") :]
    file = tmp_path / "icr-proxy.yaml"
    file.write_text(f"app: {{id: a, private_key_file: /k}}\n{lines}")
    config = load(file=file, environ={}, flags={})
    assert re.fullmatch("icrp_[0-9A-Za-z]{49}", key)
    assert key not in result.stderr
    assert config.callers == (CallerConfig(name="reporting", keys=(hash_of(key),)),)


def test_a_name_that_no_caller_can_have_is_a_usage_error() -> None:
    result = keys("caller", "--name", "a b")

    assert result.exit_code == 2
    assert "icrp_" not in result.output


def test_certificates_for_a_listener_come_with_what_to_do_next(tmp_path: Path) -> None:
    folder = tmp_path / "tls"

    first = keys("tls", "--for", "api.carbonregistry.com", "--out", str(folder))
    second = keys("tls", "--for", "api.carbonregistry.com", "--out", str(folder))

    assert (first.exit_code, second.exit_code) == (0, 0)
    yaml = first.stdout[first.stdout.index("   listeners:") : first.stdout.index("3. Let")]
    file = tmp_path / "icr-proxy.yaml"
    file.write_text(f"app: {{id: a, private_key_file: /k}}\n{textwrap.dedent(yaml)}")
    [listener] = load(file=file, environ={}, flags={}).listeners
    assert listener.tls.cert == folder / "tls.crt"
    assert f"--cacert {folder}/ca.crt" in first.stdout
    assert "The old authority" in second.stdout
    assert "listeners:" not in second.stdout
    assert "PRIVATE KEY" not in first.stdout + second.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(["--for", "a b"], 2, "is not a host", id="no host"),
        pytest.param([], 2, "Missing option '--for'", id="for nobody"),
        pytest.param(["--for", "localhost"], 1, "nothing was written", id="foreign files"),
    ],
)
def test_certificates_that_cannot_be_made_say_why(
    tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    (tmp_path / "tls.key").write_text("precious")

    result = keys("tls", "--out", str(tmp_path), *words)

    assert result.exit_code == code
    assert said in result.output
    assert (tmp_path / "tls.key").read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = keys("tls", "--for", "localhost", "--out", str(tmp_path / "file" / "tls"))

    assert result.exit_code == 1
    assert "cannot be written" in result.output

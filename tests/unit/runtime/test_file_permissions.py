"""Files with secrets that other users can read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from icr_proxy.config.inbound_models import ListenerConfig, TlsConfig, TokensConfig
from icr_proxy.config.models import AdminConfig, AppConfig, AuditConfig, Config, WebhooksConfig
from icr_proxy.config.spec import leaves
from icr_proxy.config.value_types import PathText, SecretPath
from icr_proxy.runtime.file_permissions import exposed_secrets


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.pem"
    path.write_text("planted")
    return path


def config(file: Path) -> Config:
    return Config(app=AppConfig(id="a", private_key_file=file))


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o604, 0o666, 0o777])
def test_a_key_that_everybody_can_read_is_told(file: Path, mode: int) -> None:
    file.chmod(mode)

    (found,) = exposed_secrets(config(file))

    assert (found.key, found.path, found.mode) == ("app.private_key_file", file, mode)
    assert str(found).startswith(
        f"app.private_key_file: {file} can be read by every user of this machine (mode {mode:04o});"
    )
    assert f"chmod {mode & 0o700:04o} {file}" in str(found)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o640, 0o440, 0o460])
def test_a_key_for_us_and_our_group_is_fine(file: Path, mode: int) -> None:
    """Kubernetes with `fsGroup`, and `root:icr-proxy 0640`, let the proxy itself read it so."""
    os.chown(file, -1, os.getegid())
    file.chmod(mode)

    assert list(exposed_secrets(config(file))) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other groups")
def test_a_key_for_a_group_of_others_is_told(file: Path) -> None:
    os.chown(file, -1, 54321)
    file.chmod(0o640)

    (found,) = exposed_secrets(config(file))

    assert "can be read by the group 54321, which the proxy is not in" in str(found)


def test_every_key_that_names_a_secret_is_looked_at(tmp_path: Path, file: Path) -> None:
    file.chmod(0o644)
    everything = Config(
        app=AppConfig(id="a", private_keys_dir=tmp_path),
        listeners=(
            ListenerConfig(),
            ListenerConfig(bind="127.0.0.1:1", tls=TlsConfig(cert=file, key=file)),
        ),
        tokens=TokensConfig(shared_url_file=file, shared_key_file=file),
        webhooks=WebhooksConfig(bind="127.0.0.1:2", secret_file=file),
        audit=AuditConfig(directory=tmp_path, key_file=file),
        admin=AdminConfig(token_file=tmp_path / "token"),
    )

    assert {found.key for found in exposed_secrets(everything)} == {
        "app.private_keys_dir",
        "listeners[1].tls.key",
        "tokens.shared_url_file",
        "tokens.shared_key_file",
        "webhooks.secret_file",
        "audit.key_file",
    }


def test_no_key_that_names_a_secret_is_forgotten() -> None:
    """A new key for a file: is what is in it a secret? Then its kind is `SecretPath`."""
    paths = {".".join(path): key.kind for path, _, key in leaves(Config) if is_path(key.kind)}

    assert {name for name, kind in paths.items() if not isinstance(kind, SecretPath)} == {
        "upstream.ca_file",
        "listeners.0.tls.cert",
        "listeners.0.tls.client_ca",
        "tokens.shared_ca_file",
        "admin.token_file",  # written by the proxy itself, with mode 0600
        "audit.directory",
        "audit.anchor_file",
    }


def is_path(kind: object) -> bool:
    return isinstance(kind, PathText)


def test_a_volume_of_kubernetes_is_passed_over(tmp_path: Path) -> None:
    """Only containers that mount it see it, and sidecars have no `fsGroup` of their own."""
    data = tmp_path / "..2026_11_30"
    data.mkdir()
    (data / "app.pem").write_text("planted")
    (data / "app.pem").chmod(0o444)
    (tmp_path / "..data").symlink_to(data)
    (tmp_path / "app.pem").symlink_to("..data/app.pem")
    directory = Config(app=AppConfig(id="a", private_keys_dir=tmp_path))

    assert list(exposed_secrets(config(tmp_path / "app.pem"))) == []
    assert list(exposed_secrets(directory)) == []


def test_what_is_not_there_or_no_file_is_for_its_reader_to_tell(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o644)

    assert list(exposed_secrets(config(tmp_path / "none"))) == []
    assert list(exposed_secrets(config(tmp_path / "pipe"))) == []

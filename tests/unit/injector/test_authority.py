from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from icr_proxy.errors import StartError
from icr_proxy.injector.authority import Authority
from tests.support.app_fixture import Clock

NOW = 1_800_000_000.0
DAY = 86_400.0


def authority(folder: Path, clock: Clock, **more: Path) -> Authority:
    return Authority(folder, ["localhost"], now=clock, copy=more.get("copy"))


def serial(folder: Path) -> int:
    return x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes()).serial_number


def test_a_certificate_is_renewed_a_month_before_its_end(tmp_path: Path) -> None:
    clock = Clock(NOW)
    own = authority(tmp_path, clock)
    first, pem = serial(tmp_path), own.pem

    clock.at += 366 * DAY
    assert own.renew_if_due() is False
    clock.at += 2 * DAY
    assert own.renew_if_due() is True
    assert own.renew_if_due() is False

    assert serial(tmp_path) != first
    assert (tmp_path / "ca.crt").read_bytes() == pem == own.pem


def test_an_authority_that_is_there_is_kept(tmp_path: Path) -> None:
    clock = Clock(NOW)

    assert authority(tmp_path, clock).pem == authority(tmp_path, clock).pem


def test_keys_are_for_nobody_else_to_read(tmp_path: Path) -> None:
    authority(tmp_path / "state", Clock(NOW))

    for name in ("ca.key", "tls.key"):
        assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o600


def test_a_copy_of_its_certificate_goes_where_it_is_wanted(tmp_path: Path) -> None:
    own = authority(tmp_path / "state", Clock(NOW), copy=tmp_path / "ca.pem")

    assert (tmp_path / "ca.pem").read_bytes() == own.pem


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^--ca-file: .*nowhere/ca\.pem cannot be written"):
        authority(tmp_path / "a", Clock(NOW), copy=tmp_path / "nowhere" / "ca.pem")
    with pytest.raises(StartError, match=r"^--for no name: one of them "):
        Authority(tmp_path / "b", ["no name"], now=Clock(NOW), copy=None)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "ca.crt").write_text("another's")
    with pytest.raises(StartError, match="another folder with --state"):
        authority(tmp_path / "c", Clock(NOW))
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"^--state: "):
        authority(tmp_path / "file" / "state", Clock(NOW))

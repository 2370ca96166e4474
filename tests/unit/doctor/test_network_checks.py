"""Name, connection, certificate: each failure with the remedy that fits it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from icr_proxy.config.models import TimeoutsConfig
from icr_proxy.doctor import network_checks
from icr_proxy.doctor.findings import Case
from icr_proxy.doctor.network_checks import UNKNOWN_CA, advice, shown_issuer
from icr_proxy.doctor.session import AppSession
from icr_proxy.emulator.server import Emulator
from tests.support.app_fixture import config_for
from tests.support.doctor_fixture import config_before, find, findings_of, states
from tests.support.tls_front import serving, tls_before


async def test_an_unknown_host_fails_at_its_name() -> None:
    found = await findings_of(config_for("https://nowhere.invalid"))

    assert find(found, "DNS").state == "fail"
    assert "nowhere.invalid is not resolved" in find(found, "DNS").detail
    assert states(found)["TCP"] == "skip"


async def test_a_name_is_shown_with_its_addresses(emulator: Emulator) -> None:
    base_url = emulator.base_url.replace("127.0.0.1", "localhost")

    found = await findings_of(config_before(emulator, base_url=base_url))

    assert "localhost is " in find(found, "DNS").detail
    assert "127.0.0.1" in find(found, "DNS").detail


async def test_a_port_where_nobody_listens_is_told_in_the_systems_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = await findings_of(config_for(f"http://127.0.0.1:{taken.getsockname()[1]}"))

    assert "Connection refused" in find(found, "TCP").detail


async def test_a_certificate_of_a_known_authority_is_shown(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with tls_before(emulator.base_url, tmp_path) as front:
        config = config_before(emulator, base_url=front.url, upstream={"ca_file": front.ca_file})
        found = await findings_of(config)

    assert find(found, "TLS").state == "ok"
    assert "TLSv1.3, issued by Test Authority, Test Root, 90 days" in find(found, "TLS").detail
    assert {each.state for each in found} == {"ok"}


async def test_an_unknown_authority_is_named_and_its_remedy_is_the_ca_file(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with tls_before(emulator.base_url, tmp_path) as front:
        found = await findings_of(config_before(emulator, base_url=front.url))

    tls = find(found, "TLS")
    assert tls.state == "fail"
    assert "an authority that is not trusted here" in tls.detail
    assert "issued by Test Authority, Test Root" in tls.detail
    assert "upstream.ca_file" in tls.remedy
    assert states(found)["app JWT"] == "skip"
    assert not emulator.world.requests


@pytest.mark.parametrize(
    ("certificate", "state", "words"),
    [
        pytest.param((13, "127.0.0.1"), "warn", "13 days to go", id="ends soon"),
        pytest.param((-1, "127.0.0.1"), "fail", "has expired", id="expired"),
        pytest.param((90, "127.0.0.2"), "fail", "for another name", id="another address"),
        pytest.param((90, "api.example"), "fail", "for another name", id="another name"),
    ],
)
async def test_a_certificate_that_is_not_right_is_told_in_words(
    emulator: Emulator, tmp_path: Path, certificate: tuple[float, str], state: str, words: str
) -> None:
    days, name = certificate
    async with tls_before(emulator.base_url, tmp_path, days=days, name=name) as front:
        config = config_before(emulator, base_url=front.url, upstream={"ca_file": front.ca_file})
        tls = find(await findings_of(config), "TLS")

    assert tls.state == state
    assert words in tls.detail
    assert tls.remedy


async def test_a_port_that_speaks_no_tls_is_told(emulator: Emulator) -> None:
    base_url = emulator.base_url.replace("http:", "https:")

    tls = find(await findings_of(config_before(emulator, base_url=base_url)), "TLS")

    assert "does not shake hands" in tls.detail
    assert "scheme and port" in tls.remedy


async def test_a_handshake_that_is_broken_off_is_told() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(hang_up) as address:
        tls = find(await findings_of(config_for(f"https://{address}")), "TLS")

    assert tls.state == "fail"
    assert "broke off" in tls.detail


async def test_a_handshake_without_end_takes_no_longer_than_connecting_may() -> None:
    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(say_nothing) as address:
        upstream = {"timeouts": TimeoutsConfig(connect=0.2)}
        found = await findings_of(config_for(f"https://{address}", upstream=upstream))

    tls = find(found, "TLS")
    assert "no answer in time" in tls.detail


async def test_a_ca_file_that_is_none_is_told(emulator: Emulator, tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("hello")
    base_url = emulator.base_url.replace("http:", "https:")

    config = config_before(emulator, base_url=base_url, upstream={"ca_file": wrong})
    tls = find(await findings_of(config), "TLS")

    assert "upstream.ca_file" in tls.detail


async def test_plain_http_to_another_machine_is_warned_of() -> None:
    config = config_for("http://192.0.2.1", upstream={"allow_plain": True})
    case = Case(session=AppSession(config), environ={})

    found = [each async for each in network_checks.encryption(case)]

    assert found[0].state == "warn"
    assert "can be read on the way" in found[0].detail


async def test_no_issuer_is_named_if_the_api_is_gone_by_then() -> None:
    case = Case(session=AppSession(config_for("https://127.0.0.1:1")), environ={})

    assert await network_checks._issuer_that_failed(case) == ""


def test_an_error_without_words_is_called_by_its_name() -> None:
    assert network_checks.reason(OSError()) == "OSError"
    assert network_checks.reason(ConnectionResetError("cut")) == "cut"


@pytest.mark.parametrize("bind", ["127.0.0.1:8080", "0.0.0.0:8080"])
async def test_a_name_that_leads_back_to_the_proxy_is_told(bind: str) -> None:
    listener = {"bind": bind, "exposed": True}
    found = await findings_of(config_for("http://localhost:8080", listener=listener))

    assert find(found, "DNS").state == "fail"
    assert "it would ask itself for tokens" in find(found, "DNS").detail
    assert "upstream.address" in find(found, "DNS").remedy


async def test_an_address_is_connected_to_in_place_of_the_name(emulator: Emulator) -> None:
    place = emulator.base_url.removeprefix("http://")
    config = config_before(
        emulator,
        base_url="http://api.invalid",
        upstream={"address": place, "allow_plain": True},
    )

    found = await findings_of(config)

    assert find(found, "DNS").detail == "127.0.0.1 is an address, no name"
    assert f"127.0.0.1 port {place.partition(':')[2]}" in find(found, "TCP").detail
    assert states(found)["token"] == "ok"


def verdict(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("failed")
    error.verify_code, error.verify_message = code, "a rare reason"
    return error


def test_a_ca_file_in_use_is_named_when_it_does_not_suffice() -> None:
    detail, remedy = advice(verdict(20), ca_file=Path("/etc/ca.pem"))

    assert "those in /etc/ca.pem are" in detail
    assert remedy == UNKNOWN_CA[1]


def test_a_rare_verdict_is_passed_on() -> None:
    detail, _ = advice(verdict(24), ca_file=None)

    assert detail == "the certificate is not trusted: a rare reason"


def test_what_is_no_certificate_has_no_issuer() -> None:
    assert shown_issuer(b"nothing") == ""
    assert shown_issuer(None) == ""

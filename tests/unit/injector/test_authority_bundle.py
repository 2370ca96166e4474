from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path

import pytest
from cryptography import x509

from icr_proxy.credentials import key_tools
from icr_proxy.errors import ClusterError
from icr_proxy.injector.authority import FRONT, ROOM, lacks, missing_from, read_configuration
from tests.support.certificate_authority import authority
from tests.support.pods import Manifest, applied

NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
REPLICAS = 20  # the maximum of the chart's schema (tests/external/chart/check_injector.py)


def made(folder: Path, name: str, *, at: dt.datetime = NOW) -> bytes:
    return key_tools.make_certificates(folder / name, ["injector.icr.svc"], now=at).ca.read_bytes()


def configuration(*bundles: str | None) -> Manifest:
    def client(bundle: str | None) -> Manifest:
        service = {"service": {"name": "injector", "namespace": "icr"}}
        return service if bundle is None else service | {"caBundle": bundle}

    webhooks = [{"name": f"w{at}", "clientConfig": client(each)} for at, each in enumerate(bundles)]
    return {"metadata": {"name": "w", "resourceVersion": "7"}, "webhooks": webhooks}


def encoded(*pems: bytes) -> str:
    return base64.b64encode(b"".join(pems)).decode()


def after(before: Manifest, own: bytes, *, at: dt.datetime = NOW) -> list[list[bytes]]:
    """Give the authorities that each webhook believes afterwards."""
    found = read_configuration(json.dumps(before).encode())
    changed = applied(before, missing_from(found, own, now=at.timestamp()))
    return [bundle_of(each) for each in changed["webhooks"]]


def bundle_of(webhook: Manifest) -> list[bytes]:
    pem = base64.b64decode(webhook["clientConfig"]["caBundle"])
    certificates = x509.load_pem_x509_certificates(pem)
    assert all(key_tools.is_ours(each) for each in certificates)
    return [
        each + b"-----END CERTIFICATE-----\n"
        for each in pem.split(b"-----END CERTIFICATE-----\n")[:-1]
    ]


@pytest.mark.parametrize("bundle", [None, "", "Cg==", "!", "bm9uc2Vuc2U="])
def test_where_nothing_was_there_is_our_authority_afterwards(
    tmp_path: Path, bundle: str | None
) -> None:
    """`Cg==`, a line break, is what charts put where the API demands something."""
    own = made(tmp_path, "own")

    assert after(configuration(bundle), own) == [[own]]


def test_every_webhook_of_the_configuration_gets_it(tmp_path: Path) -> None:
    own = made(tmp_path, "own")

    assert after(configuration(None, encoded(own)), own) == [[own], [own]]


def test_other_replicas_stay_believed(tmp_path: Path) -> None:
    own, other = made(tmp_path, "own"), made(tmp_path, "other")

    assert after(configuration(encoded(other)), own) == [[own, other]]


def test_where_it_is_there_nothing_is_to_be_done(tmp_path: Path) -> None:
    own, other = made(tmp_path, "own"), made(tmp_path, "other")
    found = read_configuration(json.dumps(configuration(encoded(other, own))).encode())

    assert missing_from(found, own, now=NOW.timestamp()) == []


def test_of_many_those_leave_that_were_not_renewed_for_longest(tmp_path: Path) -> None:
    own = made(tmp_path, "own")
    others = [made(tmp_path, f"{at}") for at in range(ROOM + 1)]

    assert after(configuration(encoded(*others)), own) == [[own, *others[: ROOM - 1]]]


def test_an_old_one_that_lives_moves_to_the_front_before_it_would_leave(tmp_path: Path) -> None:
    own = made(tmp_path, "own", at=NOW - 300 * DAY)
    others = [made(tmp_path, f"{at}") for at in range(FRONT)]

    assert after(configuration(encoded(*others, own)), own) == [[own, *others]]


def test_in_the_first_half_nothing_is_written(tmp_path: Path) -> None:
    own = made(tmp_path, "own", at=NOW - 300 * DAY)
    others = [made(tmp_path, f"{at}") for at in range(FRONT - 1)]

    assert after(configuration(encoded(*others, own)), own) == [[*others, own]]


def test_no_living_one_is_pushed_out_by_twenty_replicas_and_roll_outs(tmp_path: Path) -> None:
    """The most that the chart allows: old and new pods together, five times in a row.

    After each pod's start all that live look once, the worst placed last; then nobody writes.
    """
    stored = configuration(None)
    living: list[bytes] = []

    def look(own: bytes) -> int:
        nonlocal stored
        found = read_configuration(json.dumps(stored).encode())
        patch = missing_from(found, own, now=NOW.timestamp())
        stored = applied(stored, patch)
        return len(patch)

    def missing() -> list[bytes]:
        found = read_configuration(json.dumps(stored).encode())
        return [own for own in living if lacks(found, own)]

    for pod in range(5 * REPLICAS):
        living.append(made(tmp_path, f"{pod}"))
        look(living[-1])
        assert missing() == []
        living = living[-REPLICAS:]
        assert all(look(own) == 0 for own in living) or missing() == []

    assert [look(own) for own in living] == [0] * REPLICAS


def test_authorities_of_others_and_dead_ones_leave(tmp_path: Path) -> None:
    own = made(tmp_path, "own")
    dead = made(tmp_path, "dead", at=NOW - 3700 * DAY)

    assert after(configuration(encoded(authority().cert_pem, dead)), own) == [[own]]


def test_what_somebody_else_did_meanwhile_is_not_undone(tmp_path: Path) -> None:
    found = read_configuration(json.dumps(configuration(None)).encode())

    first, *_ = missing_from(found, made(tmp_path, "own"), now=NOW.timestamp())

    assert first == {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"[" * 100_000, b"\xff", b'{"metadata":{"resourceVersion":"1"}}', b"{}"]
)
def test_what_is_no_configuration_cannot_be_patched(body: bytes) -> None:
    with pytest.raises(ClusterError):
        read_configuration(body)

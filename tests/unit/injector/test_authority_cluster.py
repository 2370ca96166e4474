"""Asking the Kubernetes API over TLS; `test_authority_bundle.py` has what is asked for."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from icr_proxy.credentials import key_tools
from icr_proxy.errors import ClusterError
from icr_proxy.injector.authority import Cluster, cluster_around, trusting
from tests.support.certificate_authority import authority, issue
from tests.support.fake_cluster import TOKEN, Api, api_server

NAME = "icr-proxy-injector"
NOW = dt.datetime.now(dt.UTC)  # noqa: TID251  # certificates have real dates


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with api_server(tmp_path) as api:
        yield api


@pytest.fixture
def own(tmp_path: Path) -> bytes:
    return key_tools.make_certificates(tmp_path / "own", ["localhost"], now=NOW).ca.read_bytes()


def publish(
    api: Api, own: bytes, *, name: str = NAME, on_missing: Callable[[], None] = lambda: None
) -> bool:
    return api.cluster.publish(name, own, now=NOW.timestamp(), on_missing=on_missing)


def test_the_api_believes_our_authority_afterwards(api: Api, own: bytes) -> None:
    assert publish(api, own) is True

    bundle = api.stored["webhooks"][0]["clientConfig"]["caBundle"]
    assert base64.b64decode(bundle) == own
    assert api.asked == [f"GET {NAME}", f"PATCH {NAME}"]


def test_what_is_there_is_only_looked_at(api: Api, own: bytes) -> None:
    publish(api, own)
    api.asked.clear()

    assert publish(api, own) is False
    assert api.asked == [f"GET {NAME}"]


def test_when_somebody_else_was_faster_it_looks_again(api: Api, own: bytes) -> None:
    api.conflicts = 2

    assert publish(api, own) is True
    assert [each.partition(" ")[0] for each in api.asked] == ["GET", "PATCH"] * 3


def test_it_does_not_fight_for_ever(api: Api, own: bytes) -> None:
    api.conflicts = 1000

    with pytest.raises(ClusterError, match="is changed by somebody else all the time"):
        publish(api, own)


@pytest.mark.parametrize(
    ("statuses", "sentence"),
    [
        ([403], "answered 403 to: get icr-proxy-injector"),
        ([200, 403], "answered 403 to: patch icr-proxy-injector"),
        ([500], "answered 500 to: get"),
    ],
)
def test_a_refusal_is_told(api: Api, own: bytes, statuses: list[int], sentence: str) -> None:
    api.statuses = statuses

    with pytest.raises(ClusterError, match=sentence):
        publish(api, own)


def test_a_missing_authority_is_told_before_it_is_put_there(api: Api, own: bytes) -> None:
    asked_before: list[list[str]] = []

    publish(api, own, on_missing=lambda: asked_before.append(api.asked.copy()))
    publish(api, own, on_missing=lambda: asked_before.append(api.asked.copy()))

    assert asked_before == [[f"GET {NAME}"]]


def test_without_a_configuration_the_authority_is_missing(api: Api, own: bytes) -> None:
    told: list[bool] = []

    with pytest.raises(ClusterError, match="404"):
        publish(api, own, name="nobody", on_missing=lambda: told.append(True))

    assert told == [True]


def test_a_configuration_that_is_missing_is_told(api: Api, own: bytes) -> None:
    with pytest.raises(ClusterError, match="answered 404 to: get nobody"):
        publish(api, own, name="nobody")


def test_a_renewed_token_is_used_at_once(api: Api, own: bytes) -> None:
    (api.account / "token").write_text("an-old-one")
    with pytest.raises(ClusterError, match="401"):
        publish(api, own)

    (api.account / "token").write_text(f"{TOKEN}\n")

    assert publish(api, own) is True


def test_an_api_that_is_not_trusted_is_not_given_the_token(api: Api, own: bytes) -> None:
    (api.account / "ca.crt").write_bytes(authority("another").cert_pem)

    with pytest.raises(ClusterError, match="cannot be asked: ") as caught:
        publish(api, own)

    assert TOKEN not in caught.value.detail
    assert api.asked == []


def test_a_token_that_cannot_be_sent_is_not_shown(api: Api, own: bytes) -> None:
    (api.account / "token").write_text("two\nlines-of-secret")

    with pytest.raises(ClusterError) as caught:
        publish(api, own)

    assert "secret" not in caught.value.detail


def test_an_api_that_is_not_there_is_told(api: Api, own: bytes) -> None:
    nowhere = replace(api.cluster, port=1)

    with pytest.raises(ClusterError, match="cannot be asked: "):
        nowhere.publish(NAME, own, now=NOW.timestamp(), on_missing=lambda: None)


# -- whom it trusts -------------------------------------------------------------------------------


def test_a_cluster_ca_without_key_usage_and_identifiers_is_trusted(
    tmp_path: Path, own: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such CAs are in use: canonical/microk8s#4864, kubernetes-client/python#2394."""
    bare = issue("a cluster's CA", is_plain=True)
    default = ssl.create_default_context

    def as_of_python_3_13(*, cafile: Path) -> ssl.SSLContext:
        context = default(cafile=cafile)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    with api_server(tmp_path, ca=bare) as api:
        monkeypatch.setattr(ssl, "create_default_context", as_of_python_3_13)
        assert publish(api, own) is True

    context = trusting(api.account / "ca.crt")
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname is True


def test_such_a_ca_fails_where_python_is_strict(tmp_path: Path) -> None:
    """Otherwise the test above would pass on any CA."""
    bare = issue("a cluster's CA", is_plain=True)
    with api_server(tmp_path, ca=bare) as api:
        strict = ssl.create_default_context(cafile=api.account / "ca.crt")
        strict.verify_flags |= ssl.VERIFY_X509_STRICT
        with (
            pytest.raises(ssl.SSLCertVerificationError),
            socket.create_connection((api.cluster.host, api.cluster.port)) as plain,
        ):
            strict.wrap_socket(plain, server_hostname="localhost")


def test_a_certificate_for_another_name_is_still_refused(tmp_path: Path, own: bytes) -> None:
    bare = issue("a cluster's CA", is_plain=True)
    other = issue("elsewhere", by=bare, names=(x509.DNSName("elsewhere"),))
    with (
        api_server(tmp_path, ca=bare, certificate=other) as api,
        pytest.raises(ClusterError, match="cannot be asked: "),
    ):
        publish(api, own)

    assert api.asked == []


def test_a_cluster_of_ipv6_is_asked(tmp_path: Path, own: bytes) -> None:
    address = x509.IPAddress(ipaddress.ip_address("::1"))
    certificate = issue("kubernetes", by=authority(), names=(address,))
    with api_server(tmp_path, certificate=certificate, host="::1") as api:
        assert publish(api, own) is True


# -- where it is ----------------------------------------------------------------------------------

AROUND = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


def test_a_pod_knows_where_the_api_is(api: Api) -> None:
    found = cluster_around(AROUND, account=api.account)

    assert found == Cluster(host="10.96.0.1", port=6443, account=api.account)


@pytest.mark.parametrize("environ", [{}, AROUND | {"KUBERNETES_SERVICE_PORT": "tcp://1"}])
def test_elsewhere_nobody_does(api: Api, environ: dict[str, str]) -> None:
    with pytest.raises(ClusterError, match="is this a pod"):
        cluster_around(environ, account=api.account)


@pytest.mark.parametrize("name", ["token", "ca.crt"])
def test_without_an_account_nothing_can_be_asked(api: Api, name: str) -> None:
    (api.account / name).unlink()

    with pytest.raises(ClusterError, match="automountServiceAccountToken"):
        cluster_around(AROUND, account=api.account)

"""`icr-proxy injector`: what it takes; `integration/test_injector.py` has it running."""

import io
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from icr_proxy import __version__
from icr_proxy.cli.injector import _defaults, _setting
from icr_proxy.cli.main import commands
from icr_proxy.errors import StartError
from icr_proxy.injector.sidecar import Defaults

SIGNED = ("--self-signed", "--for", "localhost")


def injector(*words: str) -> Result:
    return CliRunner().invoke(commands, ["injector", *words], obj=io.BytesIO)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "give --tls-cert and --tls-key, or else --self-signed"),
        ((*SIGNED, "--tls-cert", "c"), "give --tls-cert and --tls-key, or else --self-signed"),
        (("--tls-cert", "c"), "--tls-cert and --tls-key go together"),
        (("--self-signed",), "--self-signed and --for go together"),
        (("--tls-cert", "c", "--tls-key", "k", "--for", "x"), "--self-signed and --for go"),
        (("--tls-cert", "c", "--tls-key", "k", "--state", "x"), "are for --self-signed"),
        ((*SIGNED, "--listen", "8443"), "--listen '8443' "),
        ((*SIGNED, "--image", "a b"), "--image 'a b' is not an image"),
        ((*SIGNED, "--key-secret", "A"), "--key-secret 'A' is not the name of an object"),
        ((*SIGNED, "--app-id", "a b"), "--app-id 'a b' is not an App ID"),
        ((*SIGNED, "--requests", "gpu=1"), "--requests 'gpu=1' is not of the form"),
        ((*SIGNED, "--limits", "cpu=fast"), "--limits 'cpu=fast' is not an amount"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: tuple[str, ...], sentence: str) -> None:
    result = injector(*words)

    assert result.exit_code == 2
    assert sentence in result.output


def test_flags_become_what_every_pod_gets() -> None:
    found = _defaults(
        image=None,
        app_id="a",
        key_secret="k",
        requests="cpu=1m",
        limits="",
        excluded=("x",),
        pull_policy="Always",
        mode="plain",
        on_conflict="pass",
    )

    assert found == Defaults(
        image=f"icr-proxy:{__version__}",
        app_id="a",
        key_secret="k",
        requests={"cpu": "1m"},
        limits={},
        excluded=frozenset({"x"}),
        pull_policy="Always",
        mode="plain",
        on_conflict="pass",
    )


def test_flags_say_where_it_is_reached(tmp_path: Path) -> None:
    cert, key = tmp_path / "c", tmp_path / "k"

    found = _setting(
        listen="127.0.0.1:0",
        tls_cert=cert,
        tls_key=key,
        self_signed=False,
        names=(),
        state=None,
        ca_file=None,
        patch_webhook=None,
        service_account=tmp_path,
    )

    assert found.tls is not None
    assert (found.bind, found.tls.cert, found.tls.key) == ("127.0.0.1:0", cert, key)


def test_help_has_examples() -> None:
    result = injector("--help")

    assert result.exit_code == 0
    assert "icr-proxy injector --self-signed --for" in result.output


def test_a_file_that_is_missing_is_named() -> None:
    result = injector("--tls-cert", "/no/tls.crt", "--tls-key", "/no/tls.key")

    assert isinstance(result.exception, StartError)
    assert result.exception.detail.startswith("tls.cert: /no/tls.crt cannot be read: ")

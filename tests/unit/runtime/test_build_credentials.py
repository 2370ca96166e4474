import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.clock import SYSTEM_CLOCKS
from icr_proxy.config.inbound_models import TokensConfig
from icr_proxy.config.models import AppConfig
from icr_proxy.credentials.key_ring import KeyRing
from icr_proxy.errors import StartError
from icr_proxy.redaction import Secret
from icr_proxy.runtime.build_credentials import _sealing_keys
from icr_proxy.runtime.composition import build
from tests.support.app_fixture import app_key_pem, config_for
from tests.unit.credentials.test_signing_key import another_pem

SHARED = Secret("redis://:hush@127.0.0.1:1")
LEAN = """
import asyncio, io, sys
sys.modules["redis"] = None
from icr_proxy.clock import SYSTEM_CLOCKS
from icr_proxy.runtime.composition import build
from icr_proxy.config.models import AppConfig, Config
from icr_proxy.errors import StartError
from icr_proxy.redaction import Secret
from icr_proxy.config.inbound_models import TokensConfig

async def make(**sections):
    app = AppConfig(id="a", private_key=Secret(key))
    build(Config(app=app, **sections), stream=io.BytesIO(), clocks=SYSTEM_CLOCKS)

key = sys.stdin.read()
asyncio.run(make())
print(sorted(name for name in sys.modules if name.startswith("icr_proxy.shared_cache")))
try:
    asyncio.run(make(tokens=TokensConfig(shared=Secret("redis://:hush@x"))))
except StartError as error:
    print(error.detail)
"""


def test_nothing_is_imported_until_it_is_configured_and_a_missing_client_is_named() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LEAN],
        input=app_key_pem(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "[]",
        "tokens.shared needs a client for Redis; install it: pip install 'icr-proxy[redis]'",
    ]


async def test_a_missing_client_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icr_proxy.shared_cache.redis_store", None)
    config = config_for("http://127.0.0.1:1", tokens=TokensConfig(shared=SHARED))

    with pytest.raises(StartError, match="needs a client for Redis"):
        build(config, stream=io.BytesIO(), clocks=SYSTEM_CLOCKS)


def ring(**app: Any) -> KeyRing:
    return KeyRing(AppConfig(id="a", **app), now=lambda: 0.0)


def test_keys_are_made_of_the_apps_keys_the_best_first(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text(app_key_pem())
    (tmp_path / "b.pem").write_text(another_pem())
    keys = ring(private_keys_dir=tmp_path)
    both = _sealing_keys(TokensConfig(shared=SHARED), keys)
    [only] = _sealing_keys(TokensConfig(shared=SHARED), ring(private_key=Secret(app_key_pem())))()

    assert len(both()) == 2
    assert only in both()
    first = both()[0]
    keys.refused(keys.candidates()[0].fingerprint)
    assert both()[1] == first


def test_a_key_that_has_gone_opens_nothing_any_more(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text(app_key_pem())
    (tmp_path / "b.pem").write_text(another_pem())
    keys = _sealing_keys(TokensConfig(shared=SHARED), ring(private_keys_dir=tmp_path))
    before = keys()
    (tmp_path / "b.pem").unlink()

    assert len(keys()) == 1
    assert set(keys()) < set(before)


def test_a_secret_in_a_file_takes_the_place_of_the_private_key(tmp_path: Path) -> None:
    file = tmp_path / "shared.secret"
    file.write_text("s" * 32 + "\n")
    tokens = TokensConfig(shared=SHARED, shared_key_file=file)
    one, other = (
        _sealing_keys(tokens, ring(private_key=Secret(pem)))()
        for pem in (app_key_pem(), another_pem())
    )

    assert one == other
    assert len(one) == 1


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("shared_key_file", "short", "tokens.shared_key_file: what is in it has fewer than 32"),
        ("shared_key_file", None, "tokens.shared_key_file: "),
        ("shared_url_file", "hush", "tokens.shared_url_file: what is in it is not the URL of a"),
        ("shared_url_file", None, "tokens.shared_url_file: "),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_start(
    tmp_path: Path, name: str, text: str | None, problem: str
) -> None:
    file = tmp_path / "file"
    if text is not None:
        file.write_text(text)
    given: dict[str, Any] = {name: file}
    if name != "shared_url_file":
        given["shared"] = SHARED
    config = config_for("http://127.0.0.1:1", tokens=TokensConfig(**given))

    with pytest.raises(StartError) as caught:
        build(config, stream=io.BytesIO(), clocks=SYSTEM_CLOCKS)

    assert caught.value.detail.startswith(problem)
    assert "hush" not in caught.value.detail

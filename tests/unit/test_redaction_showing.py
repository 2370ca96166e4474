from __future__ import annotations

from pathlib import Path

import pytest

from icr_proxy.config.loader import load
from icr_proxy.errors import ConfigError
from icr_proxy.redaction import quote_value

PLANTED = "PLANTEDvalue"


def complaints(
    *,
    file: Path | None = None,
    environ: dict[str, str] | None = None,
    flags: dict[str, str] | None = None,
) -> str:
    with pytest.raises(ConfigError) as failed:
        load(file=file, environ=environ or {}, flags=flags or {})
    return f"{failed.value} {failed.value!r}"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param("", '""', id="empty"),
        pytest.param("plain", '"plain"', id="text"),
        pytest.param('a"b', r'"a\"b"', id="quote"),
        pytest.param("a\r\x1b[2J", r'"a\r\u001b[2J"', id="control-characters"),
        pytest.param("a\u202eb", r'"a\u202eb"', id="turned-direction"),
        pytest.param("x" * 81, f'"{"x" * 80}..."', id="long"),
        pytest.param(True, "true", id="boolean"),
        pytest.param(5, "5", id="number"),
        pytest.param(0.5, "0.5", id="fraction"),
        pytest.param(None, "nothing", id="nothing"),
        pytest.param({"k": "v"}, "a mapping", id="mapping"),
        pytest.param(["v"], "a list", id="list"),
        pytest.param(("v",), "a list", id="tuple"),
        pytest.param(Path("/x"), "a PosixPath", id="anything-else"),
    ],
)
def test_a_value_is_shown_in_one_line(raw: object, text: str) -> None:
    assert quote_value(raw) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param("a\nb", "***", id="several-lines"),
        pytest.param("-----BEGIN RSA PRIVATE KEY-----\\nMIIE", "***", id="escaped-key"),
        pytest.param("LS0tLS1CRUdJTiBSU0E", "***", id="key-in-base64"),
        pytest.param("crs_abcdef", "***", id="access-token"),
        pytest.param("Bearer eyJhbGciOi", "***", id="app-jwt"),
        pytest.param("https://user:word@host", '"***@host"', id="user-and-password"),
        pytest.param("https://a@b@host", '"***@host"', id="two-ats"),
        pytest.param("https://host?key=word", '"https://host?***"', id="query"),
        pytest.param("https://host#word", '"https://host?***"', id="fragment"),
    ],
)
def test_what_may_be_a_credential_is_hidden(raw: str, text: str) -> None:
    assert quote_value(raw) == text


# -- everywhere a secret may stray ----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"app: {{private_key: [{PLANTED}]}}", id="key-in-a-list"),
        pytest.param(f"app: {{private_key: {{a: {PLANTED}}}}}", id="key-in-a-mapping"),
        pytest.param(f"app: {{private_key: {{{PLANTED}: a}}}}", id="key-as-a-key"),
        pytest.param(f"webhooks: {{secret: [{PLANTED}]}}", id="webhook-secret-in-a-list"),
        pytest.param(f"webhooks: {{secrets: {PLANTED}}}", id="webhook-secret-misspelt"),
        pytest.param(
            f"webhooks: {{bind: 'x', secret: {PLANTED}, secret_file: /s}}",
            id="webhook-secret-beside-others",
        ),
        pytest.param(f"policy: {{rules: [{PLANTED}]}}", id="rule-as-text"),
        pytest.param(f"policy: {{rules: [{{name: 'crs_{PLANTED}!'}}]}}", id="token-as-name"),
        pytest.param(f"app: {{private_ky: {PLANTED}}}", id="unknown-key"),
        pytest.param(f"app: [{PLANTED}]", id="section-as-list"),
        pytest.param(f"app: {PLANTED}", id="section-as-text"),
        pytest.param(f"foo: {{bar: [{PLANTED}]}}", id="unknown-section"),
        pytest.param(f"listeners: [{PLANTED}]", id="item-as-text"),
        pytest.param(f"listeners: {PLANTED}", id="list-as-text"),
        pytest.param(f"app:\n  private_key:{PLANTED}\n", id="no-space-after-colon"),
        pytest.param(f"upstream: {{base_url: 'https://u:{PLANTED}@h'}}", id="password-in-url"),
        pytest.param(f"upstream: {{base_url: '{PLANTED}@h'}}", id="user-in-no-url"),
        pytest.param(f"upstream: {{base_url: 'https://h/?a={PLANTED}'}}", id="query-of-url"),
        pytest.param(f"browser: {{allow_origins: ['https://{PLANTED}@h']}}", id="user-in-list"),
        pytest.param(f"app: {{id: 'BEGIN PRIVATE KEY {PLANTED}'}}", id="key-as-id"),
        pytest.param(f"app: {{private_key_file: 'a\n\n {PLANTED}'}}", id="key-as-path"),
        pytest.param(f"listeners: [{{installation: 'crs_{PLANTED}!'}}]", id="token-as-id"),
        pytest.param(f"logs: {{level: 'crs_{PLANTED}'}}", id="token-as-choice"),
    ],
)
def test_a_secret_in_a_wrong_place_of_the_file_is_not_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)

    assert PLANTED not in complaints(file=file)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("APP__PRIVATE_KY", PLANTED, id="unknown-variable"),
        pytest.param("PRIVATE_KEY", PLANTED, id="unknown-section"),
        pytest.param("APP__PRIVATE_KEY", PLANTED, id="beside-other-problems"),
        pytest.param("WEBHOOKS__SECRET", PLANTED, id="webhook-secret-beside-other-problems"),
        pytest.param("HEADERS__DROP", f"a, crs_{PLANTED} b", id="list"),
        pytest.param("UPSTREAM__BASE_URL", f"https://u:{PLANTED}@h", id="password-in-url"),
        pytest.param("ADMIN__BIND", f"-----BEGIN PRIVATE KEY----- {PLANTED}", id="key-as-bind"),
    ],
)
def test_a_secret_in_a_wrong_variable_is_not_told(name: str, text: str) -> None:
    assert PLANTED not in complaints(environ={f"ICR_PROXY_{name}": text})


def test_a_secret_of_a_flag_is_not_told() -> None:
    assert PLANTED not in complaints(flags={"app.private_key": PLANTED, "x": PLANTED})

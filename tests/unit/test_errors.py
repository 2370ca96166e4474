import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from icr_proxy import errors
from icr_proxy.errors import ConfigError, ProxyError, UpstreamBrokenError, UpstreamError


def descendants(kind: type[ProxyError]) -> Iterator[type[ProxyError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_the_root_is_never_raised_itself() -> None:
    with pytest.raises(TypeError, match="subclasses"):
        ProxyError("anything")


@pytest.mark.parametrize("kind", list(descendants(ProxyError)), ids=lambda kind: kind.__name__)
def test_every_error_is_named_an_error_and_says_what_it_means(kind: type[ProxyError]) -> None:
    assert kind.__name__.endswith("Error")
    assert kind.__doc__


@pytest.mark.parametrize(
    "kind",
    [kind for kind in descendants(ProxyError) if kind is not ConfigError],
    ids=lambda kind: kind.__name__,
)
def test_every_error_carries_a_sentence_and_a_wait(kind: type[ProxyError]) -> None:
    error = kind("what happened", retry_after=3.5)

    assert (str(error), error.detail, error.retry_after) == ("what happened", "what happened", 3.5)


def test_a_configuration_error_carries_every_problem() -> None:
    error = ConfigError(("one is wrong", "so is two"))

    assert error.problems == ("one is wrong", "so is two")
    assert error.detail == "one is wrong\nso is two"


def test_an_upstream_error_knows_nothing_was_sent_unless_told() -> None:
    error = UpstreamError()

    assert (error.sent, error.answered, error.reused) == (False, False, False)


def test_an_upstream_error_carries_the_facts_that_decide_about_sending_again() -> None:
    error = UpstreamBrokenError("broke", sent=True, answered=True, reused=True)

    assert (error.sent, error.answered, error.reused) == (True, True, True)


def test_the_tree_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))

    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]

    assert [ast.unparse(node) for node in imported] == [
        "from __future__ import annotations",
        "from typing import Literal",
        "import msgspec",
    ]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (errors.InstallationRefusedError, "installation-refused"),
        (errors.AppKeyRefusedError, "app-key-refused"),
        (errors.MintTimeoutError, "timeout"),
        (errors.MintRationedError, "rationed"),
        (errors.MintError, "failed"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_failed_mint_has_a_reason(kind: type[errors.MintError], reason: str) -> None:
    assert kind("why").reason == reason


@pytest.mark.parametrize(
    "error",
    [
        errors.MintError("why", reason="tls", retry_after=1.0),
        errors.MintTimeoutError("why"),
        errors.MintError("why", reason="busy"),
        errors.AppKeyRefusedError("why"),
        errors.InstallationRefusedError("why"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_said_again_a_failed_mint_says_the_same(error: errors.MintError) -> None:
    other = error.again(retry_after=3.0)

    assert other is not error
    assert (type(other), other.detail, other.reason) == (type(error), "why", error.reason)
    assert other.retry_after == 3.0

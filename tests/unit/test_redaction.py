import copy
import pickle
from collections.abc import Callable

import msgspec
import pytest

from icr_proxy.redaction import Secret

PLANTED = "crs_do-not-show"

SHOWN: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "f-string": lambda secret: f"{secret}",
    "format spec": lambda secret: f"{secret:>40}",
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - one of the ways
    "in a list": lambda secret: str([secret]),
    "json": lambda secret: msgspec.json.encode(secret, enc_hook=str).decode(),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_no_way_of_showing_gives_the_text(show: Callable[[Secret], str]) -> None:
    shown = show(Secret(PLANTED))

    assert PLANTED not in shown
    assert "Secret" in shown


@pytest.mark.parametrize("keep", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_secret_is_not_serialised(keep: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError, match="not pickled") as caught:
        keep(Secret(PLANTED))

    assert PLANTED not in str(caught.value)


def test_a_secret_has_no_dictionary_to_dump() -> None:
    assert not hasattr(Secret(PLANTED), "__dict__")


def test_reveal_gives_the_text() -> None:
    assert Secret(PLANTED).reveal() == PLANTED


def test_the_fingerprint_is_the_beginning_of_the_sha256() -> None:
    assert Secret("abc").fingerprint == "ba7816bf8f01"


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        pytest.param(Secret(PLANTED), True, id="same"),
        pytest.param(Secret("another"), False, id="other"),
        pytest.param(Secret(""), False, id="empty"),
        pytest.param(PLANTED, False, id="plain text is not a secret"),
        pytest.param(None, False, id="nothing"),
    ],
)
def test_secrets_are_equal_when_their_texts_are(other: object, equal: bool) -> None:  # noqa: FBT001
    assert (Secret(PLANTED) == other) is equal


def test_equal_secrets_hash_alike() -> None:
    assert len({Secret(PLANTED), Secret(PLANTED), Secret("another")}) == 2


@pytest.mark.parametrize(("text", "truth"), [("", False), ("x", True)], ids=["empty", "full"])
def test_an_empty_secret_is_false(text: str, truth: bool) -> None:  # noqa: FBT001
    assert bool(Secret(text)) is truth


def test_bytes_that_are_no_text_can_be_compared_and_fingerprinted() -> None:
    """An environment variable may hold any bytes; Python hands them over as surrogates."""
    odd = Secret("\udcff\ud800")

    assert odd == Secret("\udcff\ud800")
    assert len(odd.fingerprint) == 12

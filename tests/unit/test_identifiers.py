import pytest

from icr_proxy.identifiers import canonical_id, is_id

BROKEN = ["undefined", "null", "none", "nan", "NaN", "None", "UNDEFINED"]


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (b"3b0c9a52-0f3e-4d0e-9a55-3d1f0e4b7f10", True),
        (b"a", True),
        (b"_-", True),
        (b"x" * 64, True),
        (b"x" * 65, False),
        (b"", False),
        (b"a\n", False),
        (b" a", False),
        (b"a/b", False),
        (b"..", False),
        (b"a%2fb", False),
        ("é".encode(), False),
        (b"\xff", False),
        (b"a\0", False),
        (b"nullable", True),
        *((word.encode(), False) for word in BROKEN),
    ],
    ids=repr,
)
def test_an_id_has_a_strict_alphabet(value: bytes, is_one: bool) -> None:  # noqa: FBT001
    assert is_id(value) == is_one


UUID = "3b0c9a52-0f3e-4d0e-9a55-3d1f0e4b7f1a"


@pytest.mark.parametrize(
    "spelled",
    [UUID, UUID.upper(), UUID.capitalize(), UUID.replace("a", "A")],
)
def test_a_uuid_has_one_spelling(spelled: str) -> None:
    assert canonical_id(spelled) == UUID


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Acme-1", id="no UUID"),
        pytest.param(UUID.upper().replace("-", ""), id="no hyphens"),
        pytest.param(UUID.upper() + "0", id="a digit too many"),
        pytest.param(UUID.upper()[:-1], id="a digit too few"),
        pytest.param(UUID.upper() + "\n", id="line break"),
        pytest.param(UUID.upper().replace("3D", "3G"), id="no hexadecimal digit"),
        pytest.param(UUID.upper().replace("3", "\u0663"), id="digits of another script"),
        pytest.param("{" + UUID.upper() + "}", id="braces"),
        pytest.param("urn:uuid:" + UUID.upper(), id="URN"),
        pytest.param(UUID.upper().replace("-", "_"), id="underscores"),
        pytest.param(f"org-{UUID.upper()}", id="part of an ID"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_is_no_uuid_keeps_its_spelling(text: str) -> None:
    assert canonical_id(text) == text

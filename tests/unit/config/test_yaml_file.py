from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from icr_proxy.config import yaml_file
from icr_proxy.config.document import Mapping, Scalar, Sequence, plain
from icr_proxy.errors import ConfigError

PLANTED = "PLANTEDvalue"


def file(directory: Path, content: bytes) -> Path:
    path = directory / "c.yaml"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("k:", None, id="nothing"),
        pytest.param("k: ~", None, id="tilde"),
        pytest.param("k: null", None, id="null"),
        pytest.param("k: !!null ''", None, id="null-by-tag"),
        pytest.param("k: 'null'", "null", id="quoted-null"),
        pytest.param("k: ''", "", id="quoted-nothing"),
        pytest.param("k: yes", "yes", id="yaml-1.1-boolean"),
        pytest.param("k: 2023-06-16", "2023-06-16", id="date"),
        pytest.param("k: 22:22", "22:22", id="sexagesimal"),
        pytest.param("k: 010", "010", id="octal"),
        pytest.param("k: 1_000", "1_000", id="underscore"),
        pytest.param("k: 127.0.0.1:8080", "127.0.0.1:8080", id="address"),
        pytest.param("k: !!int 5", "5", id="harmless-tag"),
        pytest.param("k: ! 5", "5", id="non-specific-tag"),
        pytest.param("k: |\n  a\n  b\n", "a\nb\n", id="block"),
        pytest.param("k: [a, ~, [b], {c: d}]", ["a", None, [], {}], id="list"),
        pytest.param("k: {a: b}", {}, id="mapping"),
        pytest.param("a: &x 5\nk: *x", "5", id="anchor"),
    ],
)
def test_a_value_stays_the_text_that_was_written(text: str, value: object) -> None:
    _, node = yaml_file.parse(text).entries["k"]

    assert plain(node) == value


def test_every_node_knows_its_line() -> None:
    root = yaml_file.parse("# comment\na:\n  - x\n  - b: y\n")

    line, items = root.entries["a"]
    assert line == 2
    assert isinstance(items, Sequence)
    assert [each.line for each in items.items] == [3, 4]
    assert isinstance(items.items[1], Mapping)
    assert items.items[1].entries["b"] == (4, Scalar(4, "y"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"# only a comment\n", id="comment"),
        pytest.param(b"---\n", id="document-without-content"),
        pytest.param(b"\xef\xbb\xbf", id="byte-order-mark-alone"),
        pytest.param(b"~", id="null"),
        pytest.param(b"{}", id="empty-mapping"),
    ],
)
def test_an_empty_file_is_a_mapping_without_keys(tmp_path: Path, content: bytes) -> None:
    assert yaml_file.read(file(tmp_path, content)).entries == {}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbfk: v\n", id="byte-order-mark"),
        pytest.param(b"k: v\r\n", id="windows-line-ends"),
        pytest.param(b"---\nk: v\n...\n", id="document-markers"),
        pytest.param(b'{"k": "v"}', id="json"),
    ],
)
def test_files_of_other_systems_are_read(tmp_path: Path, content: bytes) -> None:
    _, node = yaml_file.read(file(tmp_path, content)).entries["k"]

    assert plain(node) == "v"


def test_a_merge_fills_in_what_is_not_there_and_earlier_ones_win() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nk:\n  <<: [*a, *b]\n  x: 3\n"

    _, node = yaml_file.parse(text).entries["k"]

    assert isinstance(node, Mapping)
    found = {name: plain(value) for name, (_, value) in node.entries.items()}
    assert found == {"x": "3", "y": "1", "z": "2"}


def test_a_single_mapping_is_merged() -> None:
    _, node = yaml_file.parse("a: &a {x: 1}\nk: {<<: *a}\n").entries["k"]

    assert isinstance(node, Mapping)
    assert list(node.entries) == ["x"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(b"- a", ": is not a mapping", id="list"),
        pytest.param(b"text", ": is not a mapping", id="text"),
        pytest.param(b"a: 1\n\nb: 2\na: 3\n", ", line 4: has the key a twice", id="duplicate"),
        pytest.param(
            b"s:\n  a: 1\n  a: 1\n", ", line 3: has the key a twice", id="duplicate-inner"
        ),
        pytest.param(b"k: {<<: {a: 1}, <<: {b: 1}}", ": has the key << twice", id="two-merges"),
        pytest.param(b"k: {<<: 5}", "merges (<<) something", id="merge-of-text"),
        pytest.param(b"a: 1\n--- \nb: 1\n", ", line 2: holds a second document", id="documents"),
        pytest.param(b"a: 1\nb: [\n", ", line 3: is not YAML", id="open-bracket"),
        pytest.param(b"a:\n\t- b\n", ", line 2: is not YAML", id="tab"),
        pytest.param(b"a: b: c", ", line 1: is not YAML", id="two-colons"),
        pytest.param(b"k: *a", ", line 1: refers with * to an anchor", id="alias-of-nothing"),
        pytest.param(b"k: &a [*a]", "refers with * to an anchor", id="alias-of-itself"),
        pytest.param(b"k: !!python/name:os.system x", "has a tag", id="python-tag"),
        pytest.param(b"k: !!binary aGk=", "has a tag", id="binary-tag"),
        pytest.param(b"k: !own [a]", "has a tag", id="own-tag-on-list"),
        pytest.param(b"k: !!omap {a: b}", "has a tag", id="other-tag-on-mapping"),
        pytest.param(b"? [a]\n: b\n", "a key that is not a name", id="list-as-key"),
        pytest.param(b"~: b\n", "a key that is not a name", id="null-as-key"),
        pytest.param(b"'a b': c\n", "a key that is not a name", id="key-with-space"),
        pytest.param(b"a: \xff\n", ", line 1: is not UTF-8", id="latin-1"),
        pytest.param("a: b\n".encode("utf-16"), ", line 1: is not UTF-8", id="utf-16"),
        pytest.param(b"a: b\nc: \xe4\n", ", line 2: is not UTF-8", id="latin-1-further-down"),
        pytest.param(b"a: \x00\n", "a character that is not allowed", id="nul"),
        pytest.param(b"k: " + b"[" * 50_000, "is nested too deeply", id="brackets"),
        pytest.param(b"- " * 50_000, "is nested too deeply", id="dashes"),
        pytest.param(b"#" * (1 << 20) + b"#", ": is longer than 1 MiB", id="too-long"),
    ],
)
def test_an_unusable_file_is_named_with_the_line(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = file(tmp_path, content)

    with pytest.raises(ConfigError) as failed:
        yaml_file.read(path)

    [problem] = failed.value.problems
    assert problem.startswith(str(path))
    assert complaint in problem


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        pytest.param("missing.yaml", "No such file or directory", id="missing"),
        pytest.param(".", "Is a directory", id="directory"),
        pytest.param("a\0b", "not a path", id="nul"),
        pytest.param("x" * 300, "File name too long", id="too-long"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, path: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as failed:
        yaml_file.read(tmp_path / path)

    assert failed.value.problems == (f"{tmp_path / path}: cannot be read: {complaint}",)


def test_anchors_that_multiply_cost_nothing() -> None:
    """Billion laughs: what an alias means is never written out."""
    levels = "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 60))

    root = yaml_file.parse("a0: &a0 x\n" + levels)

    _, node = root.entries["a59"]
    assert plain(node) == [[]] * 9


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"app: {{private_key:{PLANTED}}}", id="missing-space"),
        pytest.param(f"k: *{PLANTED}", id="alias"),
        pytest.param(f"a: &{PLANTED} 1\nb: &{PLANTED} [", id="anchor"),
        pytest.param(f"k: !{PLANTED} x", id="tag"),
        pytest.param(f"k: !{PLANTED}!x y", id="tag-handle"),
        pytest.param(f"k: '{PLANTED}", id="open-quote"),
        pytest.param(f'k: "{PLANTED}\\q"', id="bad-escape"),
        pytest.param(f"k: {PLANTED}: x", id="colon"),
        pytest.param(f"%YAML {PLANTED}\n---\n", id="directive"),
        pytest.param(f"k: @{PLANTED}", id="reserved"),
        pytest.param(f"k: {PLANTED}\n x\ny", id="continued"),
        pytest.param(f"{PLANTED}", id="alone"),
    ],
)
@pytest.mark.parametrize("pure", [True, False], ids=["python", "libyaml"])
def test_a_parser_error_never_quotes_the_file(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str,
    pure: bool,  # noqa: FBT001
) -> None:
    if pure:
        monkeypatch.setattr(yaml_file, "_LOADER", yaml.SafeLoader)
    path = file(tmp_path, text.encode())

    with pytest.raises(ConfigError) as failed:
        yaml_file.read(path)

    assert PLANTED not in str(failed.value)


def test_a_pipe_into_which_nobody_writes_does_not_stop_the_start_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_file, "PIPE_SECONDS", 0.01)
    os.mkfifo(tmp_path / "c.yaml")

    with pytest.raises(ConfigError) as failed:
        yaml_file.read(tmp_path / "c.yaml")

    assert "cannot be read: nobody wrote into the pipe" in failed.value.problems[0]

"""From what a person types to a request as it would arrive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from icr_proxy.config.inbound_models import ListenerConfig
from icr_proxy.config.models import AppConfig, Config
from icr_proxy.forwarding.explain import arrive, read_header
from icr_proxy.redaction import Secret

CONFIG = Config(
    app=AppConfig(id="a", private_key=Secret("k")),
    listeners=(
        ListenerConfig(bind="127.0.0.1:8080"),
        ListenerConfig(bind="0.0.0.0:8081", exposed=True),
        ListenerConfig(bind="*:8082", exposed=True),
    ),
)


@pytest.mark.parametrize(
    ("url", "bind", "target", "host"),
    [
        pytest.param("/p?q", "127.0.0.1:8080", "/p?q", b"127.0.0.1:8080", id="a path"),
        pytest.param("/p#part", "127.0.0.1:8080", "/p", b"127.0.0.1:8080", id="no fragment"),
        pytest.param(
            "http://localhost:8080/p", "127.0.0.1:8080", "/p", b"localhost:8080", id="a listener"
        ),
        pytest.param(
            "http://gateway:8081", "0.0.0.0:8081", "/", b"gateway:8081", id="another listener"
        ),
        pytest.param("http://[::1]:8082/p", "*:8082", "/p", b"[::1]:8082", id="of both families"),
        pytest.param(
            "http://127.0.0.1:8080?q", "127.0.0.1:8080", "/?q", b"127.0.0.1:8080", id="no path"
        ),
        pytest.param(
            "http://api.carbonregistry.com/p",
            "127.0.0.1:8080",
            "http://api.carbonregistry.com/p",
            b"api.carbonregistry.com",
            id="the API, as by HTTP_PROXY",
        ),
    ],
)
def test_a_url_leads_to_a_listener(url: str, bind: str, target: str, host: bytes) -> None:
    question = arrive(CONFIG, "GET", url, [], listener=None)

    assert (question.listener.bind, question.target) == (bind, target)
    assert question.headers == ((b"Host", host),)


def test_a_listener_without_a_port_is_asked_for_by_path_or_by_name() -> None:
    config = replace(
        CONFIG, listeners=(ListenerConfig(bind="unix:/run/x"), ListenerConfig(bind="127.0.0.1:1"))
    )

    by_path = arrive(config, "GET", "/p", [], listener=None)
    by_name = arrive(config, "GET", "/p", [], listener="unix:/run/x")
    by_port = arrive(config, "GET", "http://localhost:1/p", [], listener=None)

    assert by_path == by_name
    assert by_path.headers == ((b"Host", b"localhost"),)
    assert by_port.listener.bind == "127.0.0.1:1"


def test_a_listener_may_be_named() -> None:
    question = arrive(CONFIG, "GET", "/p", [], listener="0.0.0.0:8081")

    assert question.listener.bind == "0.0.0.0:8081"
    assert question.headers == ((b"Host", b"127.0.0.1:8081"),)


def test_a_named_listener_may_be_behind_another_port() -> None:
    question = arrive(CONFIG, "GET", "https://gateway.example/p", [], listener="0.0.0.0:8081")

    assert (question.target, question.headers[0][1]) == ("/p", b"gateway.example")


def test_the_callers_host_stays() -> None:
    question = arrive(CONFIG, "GET", "/p", ["host: evil.example"], listener=None)

    assert question.headers == ((b"host", b"evil.example"),)


@pytest.mark.parametrize(
    ("line", "header"),
    [
        pytest.param("Accept: */*", (b"Accept", b"*/*"), id="plain"),
        pytest.param("X-Empty:", (b"X-Empty", b""), id="empty"),
        pytest.param("X-Time:10:00", (b"X-Time", b"10:00"), id="colons"),
        pytest.param("X-Name: Ærø", (b"X-Name", "Ærø".encode()), id="UTF-8"),
    ],
)
def test_a_header_is_read(line: str, header: tuple[bytes, bytes]) -> None:
    assert read_header(line) == header


@pytest.mark.parametrize("line", ["Accept", "A b: c", ": x", "X: a\r\nY: b", "X: \x00"])
def test_what_is_no_header_is_an_error_that_does_not_repeat_it(line: str) -> None:
    with pytest.raises(ValueError, match="'Name: value'") as caught:
        read_header(line)
    assert line not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "url", "listener", "words"),
    [
        pytest.param("GE T", "/p", None, "not a method", id="method"),
        pytest.param("GET", "projects", None, "begins with /", id="relative"),
        pytest.param("GET", "/a b", None, "no spaces", id="space"),
        pytest.param("GET", "ftp://127.0.0.1:8080/", None, "http", id="scheme"),
        pytest.param("GET", "http://127.0.0.1:9/p", None, "0.0.0.0:8081", id="no listener there"),
        pytest.param("GET", "http://127.0.0.1:x/p", None, "0.0.0.0:8081", id="no port"),
        pytest.param("GET", "/p", "127.0.0.1:9", "there is no listener", id="listener"),
        pytest.param("GET", "/p", "nowhere", "host:port", id="no bind"),
    ],
)
def test_what_could_never_arrive_is_an_error(
    method: str, url: str, listener: str | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        arrive(CONFIG, method, url, [], listener=listener)


def test_a_caller_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no caller x; there is none"):
        arrive(CONFIG, "GET", "/p", [], listener=None, caller="x")


@pytest.mark.parametrize(
    ("url", "headers", "expected"),
    [
        pytest.param("http://i@localhost:8080/p", [], b"Basic aTo=", id="a user"),
        pytest.param("http://i:k%21@localhost:8080/p", [], b"Basic aTprIQ==", id="and a password"),
        pytest.param(
            "http://i@api.carbonregistry.com/p", [], b"Basic aTo=", id="the API, as by HTTP_PROXY"
        ),
        pytest.param(
            "http://i@localhost:8080/p",
            ["authorization: Bearer x"],
            b"Bearer x",
            id="a header wins",
        ),
    ],
)
def test_the_user_part_of_a_url_becomes_a_header(
    url: str, headers: list[str], expected: bytes
) -> None:
    question = arrive(CONFIG, "GET", url, headers, listener=None)

    values = [value for name, value in question.headers if name.lower() == b"authorization"]
    assert values == [expected]
    assert "@" not in question.target


def test_the_server_as_a_whole_may_be_asked_about() -> None:
    assert arrive(CONFIG, "OPTIONS", "*", [], listener=None).target == "*"
    with pytest.raises(ValueError, match="path that begins with /"):
        arrive(CONFIG, "GET", "*", [], listener=None)

import pytest

from icr_proxy.net.addresses import StoreAddress, read_store_url
from icr_proxy.redaction import Secret


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://redis", StoreAddress(host="redis")),
        ("redis://127.0.0.1:7000/3", StoreAddress(host="127.0.0.1", port=7000, database=3)),
        ("redis://[::1]:7000/", StoreAddress(host="::1", port=7000)),
        ("redis://:p%40ss@redis", StoreAddress(host="redis", password=Secret("p@ss"))),
        (
            "rediss://icr:secret@redis.example:6380/0",
            StoreAddress(
                host="redis.example", port=6380, is_encrypted=True, user="icr",
                password=Secret("secret"),
            ),
        ),
        ("unix:///run/redis.sock", StoreAddress(path="/run/redis.sock")),
        (
            "unix://icr:secret@/run/redis.sock?db=2",
            StoreAddress(
                path="/run/redis.sock", database=2, user="icr", password=Secret("secret")
            ),
        ),
    ],
)  # fmt: skip
def test_urls_that_are_understood(url: str, address: StoreAddress) -> None:
    assert read_store_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "", "redis", "redis://", "http://redis", "redis://redis:0", "redis://redis:70000",
        "redis://redis/a", "redis://redis?db=1", "redis://redis/0?ssl_cert_reqs=none",
        "redis://user:hush@", "redis://a:hush@b@c", "redis://-hush-", "redis://[::hush]",
        "unix://hush/run/redis.sock", "unix://", "unix:///", "redis://redis#hush",
    ],
)  # fmt: skip
def test_others_are_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a Redis") as caught:
        read_store_url(url)

    assert "hush" not in str(caught.value)


def test_a_password_does_not_show() -> None:
    assert "hush" not in repr(read_store_url("redis://:hush@redis"))

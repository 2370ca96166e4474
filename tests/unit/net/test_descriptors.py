"""Connections share the descriptors there are; what runs out is not the API's fault."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from icr_proxy.config.models import WebhooksConfig
from icr_proxy.errors import StartError
from icr_proxy.net import addresses
from icr_proxy.net.descriptors import (
    PORT_CONNECTIONS,
    SPARE,
    SPARE_LEAST,
    DescriptorShares,
    connections_that_fit,
    is_exhausted,
    open_now,
    raise_limit,
    share,
)
from icr_proxy.runtime.descriptor_shares import DescriptorLimit
from tests.support.app_fixture import config_for


@contextmanager
def limited(*, soft: int) -> Iterator[None]:
    """Have a soft limit of open files for a while."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Open files until there is no descriptor."""
    taken: list[int] = []
    with limited(soft=open_now() + 40):
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            yield
        finally:
            for each in taken:
                os.close(each)


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with limited(soft=256):
        assert raise_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_where_there_is_enough_all_is_as_configured() -> None:
    assert share(20_000, callers=10_000, upstream=100, ports=2) == DescriptorShares(
        callers=10_000, upstream=100, port=PORT_CONNECTIONS
    )


@pytest.mark.parametrize("ports", [1, 2])
@pytest.mark.parametrize("free", [30, 64, 100, 300, 1000, 4000])
@pytest.mark.parametrize(("callers", "upstream"), [(10_000, 100), (50, 100), (50, 10_000), (1, 1)])
def test_there_are_never_more_connections_than_descriptors(
    free: int, callers: int, upstream: int, ports: int
) -> None:
    shares = share(free, callers=callers, upstream=upstream, ports=ports)

    assert shares is not None
    used = shares.callers + shares.upstream + ports * shares.port
    assert used + min(SPARE, SPARE_LEAST) <= free
    assert 1 <= shares.callers <= callers
    assert 1 <= shares.upstream <= upstream
    assert shares.port >= 4


def test_what_one_side_does_not_need_the_other_one_gets() -> None:
    few_callers = share(300, callers=50, upstream=10_000, ports=1)
    few_upstream = share(300, callers=10_000, upstream=50, ports=1)

    assert few_callers is not None
    assert few_upstream is not None
    assert few_callers.callers == 50
    assert few_upstream.upstream == 50
    assert few_callers.upstream > 100
    assert few_upstream.callers > 100


def test_a_configuration_is_cut_to_what_fits() -> None:
    config = config_for("http://127.0.0.1:9")
    descriptors = DescriptorLimit(limit=300, used=10)
    fitting = descriptors.clamp(config)

    assert fitting.limits.connections + fitting.upstream.connections < 300
    assert fitting == replace(config, limits=fitting.limits, upstream=fitting.upstream)
    assert DescriptorLimit(limit=20_000, used=10).clamp(config) == config


def test_a_port_for_webhooks_takes_its_share() -> None:
    config = config_for("http://127.0.0.1:9")
    webhooks = WebhooksConfig(
        bind=addresses.read_bind("127.0.0.1:9"), secret=config.app.private_key
    )
    descriptors = DescriptorLimit(limit=300, used=10)

    without, beside = (
        descriptors.shares(config),
        descriptors.shares(replace(config, webhooks=webhooks)),
    )

    assert beside.callers < without.callers


def test_too_low_a_limit_is_told_with_the_number_that_is_needed() -> None:
    config = config_for("http://127.0.0.1:9")

    with pytest.raises(StartError, match="is 32, and at least 53 are needed"):
        DescriptorLimit(limit=32, used=10).clamp(config)

    assert DescriptorLimit(limit=53, used=10).clamp(config).limits.connections == 1
    assert DescriptorLimit(limit=32, used=10).clamp_running(config) == config
    assert DescriptorLimit(limit=53, used=10).clamp_running(config).limits.connections == 1


def test_a_program_that_makes_no_connections_has_all_but_a_few() -> None:
    assert connections_that_fit(2) == 2
    with limited(soft=200):
        assert 1 <= connections_that_fit(10_000) < 200
    with limited(soft=20):
        assert connections_that_fit(256) == 1


def test_a_lack_of_descriptors_is_told_apart() -> None:
    assert is_exhausted(OSError(24, "Too many open files"))
    assert is_exhausted(OSError(23, "Too many open files in system"))
    assert not is_exhausted(ConnectionRefusedError(111, "refused"))
    with no_descriptor_left():
        assert is_exhausted(socket.gaierror(-3, "Temporary failure in name resolution"))

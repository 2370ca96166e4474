"""Builds the services of one proxy from a configuration; nowhere else are services made.

`build_observers` makes what watches, `build_outbound` what leads to the API, `build_credentials`
what holds keys and tokens, `build_inbound` what clients reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from icr_proxy.runtime.build_credentials import Credentials, build_credentials
from icr_proxy.runtime.build_inbound import Inbound, build_inbound
from icr_proxy.runtime.build_observers import Observers, add_states, build_observers
from icr_proxy.runtime.build_outbound import Outbound, build_outbound
from icr_proxy.server.limits import InFlight

if TYPE_CHECKING:
    from icr_proxy.clock import Clocks
    from icr_proxy.config.models import Config
    from icr_proxy.observability.log import ByteStream


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The services of one proxy."""

    observers: Observers
    outbound: Outbound
    credentials: Credentials
    inbound: Inbound


def build(config: Config, *, stream: ByteStream, clocks: Clocks) -> Services:
    """Make everything; nothing is opened yet.

    Raises:
        KeyUnusableError: the private key cannot be used.
        StartError: another file that the configuration names cannot.
    """
    in_flight = InFlight()
    observers = build_observers(config, in_flight=in_flight, stream=stream, clocks=clocks)
    outbound = build_outbound(config, observers=observers, clocks=clocks)
    credentials = build_credentials(
        config, upstream=outbound.upstream, observers=observers, clocks=clocks
    )
    inbound = build_inbound(
        config,
        in_flight=in_flight,
        upstream=outbound.upstream,
        credentials=credentials,
        observers=observers,
        clocks=clocks,
    )
    add_states(
        observers.metrics,
        config=config,
        tokens=credentials.tokens,
        pool=outbound.pool,
        app_client=credentials.app_client,
        in_flight_most=lambda: inbound.handlers[0].rules.limits.in_flight,
        clocks=clocks,
    )
    return Services(
        observers=observers, outbound=outbound, credentials=credentials, inbound=inbound
    )

"""The proxy less some of what watches it; for the suite `cost` alone.

There is no switch for metrics in the product, and none is wanted: this builds the same App and
takes the readers out. `python -m tests.bench.variant --without metrics --config FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from prometheus_client import Counter, Gauge, Histogram

from icr_proxy.config.loader import load
from icr_proxy.observability.metrics import Metrics
from icr_proxy.observability.request_log import RequestLog
from icr_proxy.observability.request_metrics import InstallationMetrics
from icr_proxy.runtime.app import App

if TYPE_CHECKING:
    from icr_proxy.config.models import Config

READERS = {"logs": (RequestLog,), "metrics": (Metrics, InstallationMetrics)}


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", default="", help="logs, metrics, audit; with commas")
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    without = frozenset(filter(None, options.without.split(",")))
    config: Config = load(file=options.config, environ=os.environ, flags={})
    if "audit" in without:
        config = replace(config, audit=replace(config.audit, directory=None, key_file=None))
    if "metrics" in without:
        _count_nothing()
    uvloop.run(_serve(config, without=without))


def _count_nothing() -> None:
    """Take the cost of what is counted elsewhere, such as connections and lookups, as well."""
    for kind, names in (
        (Counter, ("inc",)),
        (Gauge, ("inc", "dec", "set")),
        (Histogram, ("observe",)),
    ):
        for name in names:
            setattr(kind, name, lambda *_arguments, **_named: None)


async def _serve(config: Config, *, without: frozenset[str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    app = App(config, stream=sys.stdout.buffer)
    gone = tuple(kind for name in without for kind in READERS.get(name, ()))
    gathering = app.inbound.dispatcher
    gathering.readers = [each for each in gathering.readers if not isinstance(each, gone)]
    async with app:
        gc.freeze()
        await stop.wait()


if __name__ == "__main__":
    main()

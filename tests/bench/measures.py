"""What is measured, named once: the suites note it, the report, the goals and the plot read it."""

from __future__ import annotations

Measure = tuple[str, str]
"""Suite, and what in it."""

CPU_PLAIN = ("cpu", "µs CPU/request, plain")
CPU_TLS = ("cpu", "µs CPU/request, TLS upstream")
VARIED_PLAIN = ("cpu", "µs CPU/request, every head different, plain")
VARIED_TLS = ("cpu", "µs CPU/request, every head different, TLS upstream")
FRESH_PLAIN = ("cpu", "µs CPU/request, heads of five clients, plain")
FRESH_TLS = ("cpu", "µs CPU/request, heads of five clients, TLS upstream")
P50 = ("latency", "p50 ms at 500/s")
P99 = ("latency", "p99 ms at 500/s")
ADDED_P50 = ("latency", "added p50 ms at 500/s")
ADDED_P99 = ("latency", "added p99 ms at 500/s")
STREAM_DOWN = ("stream", "CPU s/GiB down")
STREAM_UP = ("stream", "CPU s/GiB up")
GROWN_DOWN = ("stream", "MiB growth down")
GROWN_UP = ("stream", "MiB growth up")
START = ("footprint", "ms to first answer")
IDLE = ("footprint", "MiB idle")
TOKENS = ("footprint", "MiB for 1,000 tokens more")
CONNECTION = ("idle", "KiB/idle connection")
WIDE = ("growth", "1,000 connections / 32")
MANY = ("growth", "10,000 installations / 1")
SLOWLORIS = ("slowloris", "p50 with / without")

TIMES = "\N{MULTIPLICATION SIGN}"
"""The unit of a ratio."""
NOTHING = "\N{EN DASH}"
"""In a table, where no number is."""

US = "icr-proxy"
DIRECT = "(direct)"
"""The caller of the latency suite that goes to the upstream without any proxy."""
ALL_OFF = "all off"
"""The contender of the cost suite that the others are compared with."""
NAMES = {
    US: US,
    "base": "base",
    "envoy": "Envoy",
    "nginx": "nginx",
    "go": "Go",
    "aiohttp": "plain aiohttp",
    DIRECT: "no proxy",
}
"""How people call the contenders, in the order in which they are told."""


def told(value: float) -> str:
    """Write a number as it is told: three digits, more or less."""
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"

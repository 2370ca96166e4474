"""All endpoints of the emulator in the order in which they are tried, and their sketch as OpenAPI.

The real file was never found, so only paths and methods are here, no schemas (A).
"""

from collections.abc import Iterable
from typing import Final

from icr_proxy.emulator import control, playground
from icr_proxy.emulator.api import (
    app_endpoints,
    organization_endpoints,
    public_endpoints,
    v1_endpoints,
    warehouse_endpoints,
)
from icr_proxy.emulator.api.calls import ApiResponse, Call, Route, json_answer

_GENERATIONS: Final = ("v1", "v0.5", "v0")


def describe(routes: Iterable[Route]) -> ApiResponse:
    """List the paths of the registry."""
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        summary = {"summary": (route.act.__doc__ or "").partition("\n")[0], "responses": {}}
        paths.setdefault(route.template, {})[route.method.lower()] = summary
    info = {"title": "ICR API (emulator)", "version": "1"}
    return json_answer({"openapi": "3.0.0", "info": info, "paths": paths})


def openapi_routes(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Serve the description of these routes; nothing says that it needs a token (A)."""

    def read(_call: Call) -> ApiResponse:
        return describe(routes)

    return tuple(Route("GET", f"/{generation}/openapi", read) for generation in _GENERATIONS)


_REGISTRY: Final[tuple[Route, ...]] = (
    *app_endpoints.ROUTES,
    *organization_endpoints.ROUTES,
    *organization_endpoints.INVENTORY_ROUTES,
    *warehouse_endpoints.ROUTES,
    *public_endpoints.ROUTES,
    *v1_endpoints.ROUTES,
    *v1_endpoints.ACCOUNT_ROUTES,
)

ROUTES: Final[tuple[Route, ...]] = (
    *_REGISTRY,
    *openapi_routes(_REGISTRY),
    *playground.ROUTES,
    *control.ROUTES,
    *control.KEY_ROUTES,
)

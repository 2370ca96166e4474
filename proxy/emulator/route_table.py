"""Every endpoint of the emulator, in the order in which they are tried."""

from typing import Final

from proxy.emulator import (
    app_endpoints,
    control,
    control_keys,
    inventory_endpoints,
    organization_endpoints,
    playground,
    public_endpoints,
    v1_account_endpoints,
    v1_endpoints,
    warehouse_endpoints,
)
from proxy.emulator.calls import Route
from proxy.emulator.openapi import openapi_routes

_REGISTRY: Final[tuple[Route, ...]] = (
    *app_endpoints.ROUTES,
    *organization_endpoints.ROUTES,
    *inventory_endpoints.ROUTES,
    *warehouse_endpoints.ROUTES,
    *public_endpoints.ROUTES,
    *v1_endpoints.ROUTES,
    *v1_account_endpoints.ROUTES,
)

ROUTES: Final[tuple[Route, ...]] = (
    *_REGISTRY,
    *openapi_routes(_REGISTRY),
    *playground.ROUTES,
    *control.ROUTES,
    *control_keys.ROUTES,
)

"""Every endpoint of the emulator, in the order in which they are tried."""

from typing import Final

from icr_proxy.emulator import control, control_keys, playground
from icr_proxy.emulator.api import (
    app_endpoints,
    inventory_endpoints,
    organization_endpoints,
    public_endpoints,
    v1_account_endpoints,
    v1_endpoints,
    warehouse_endpoints,
)
from icr_proxy.emulator.api.calls import Route
from icr_proxy.emulator.api.openapi import openapi_routes

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

"""From the organization a request names to the installation whose token it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.errors import InstallationRefusedError
from icr_proxy.identifiers import OnOrganization, TokenKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def settle(
    credential: OnOrganization, *, find: Callable[[str], Awaitable[str | None]]
) -> TokenKey:
    """Give the key of the token.

    `find` gives the installation on an organization; asking may take the API's list.

    Raises:
        InstallationRefusedError: the app is not installed on that organization.
        MintError: the list of installations could not be had.
    """
    installation = await find(credential.organization)
    if installation is None:
        raise InstallationRefusedError("the app is not installed on that organization")
    return TokenKey(installation)

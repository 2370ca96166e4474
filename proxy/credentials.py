"""From what a request names to whose token it gets, where it does not name the token itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.access import AppSignature, OnOrganization, TokenKey
from proxy.errors import InstallationRefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def settle(
    credential: AppSignature | OnOrganization, *, find: Callable[[str], Awaitable[str | None]]
) -> TokenKey | None:
    """Give the key of the token; `None` stands for the app's own signature.

    `find` gives the installation on an organization; asking may take the API's list.

    Raises:
        InstallationRefusedError: the app is not installed on that organization.
        MintError: the list of installations could not be had.
    """
    if isinstance(credential, AppSignature):
        return None
    installation = await find(credential.organization)
    if installation is None:
        raise InstallationRefusedError("the app is not installed on that organization")
    return TokenKey(installation)

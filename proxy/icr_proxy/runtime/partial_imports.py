"""Packages less what serving never uses of them: 2.4 MB, and a tenth of the time to start.

The `__init__.py` of each imports all there is. Here the package is made known without running that
file; its modules are found as always. Whoever asks the package for what only that file gives has
it run then, and finds it there.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

PACKAGES = (
    "cryptography.x509",  # PyJWT asks for it, should a key come in a certificate
    "prometheus_client",  # servers of its own, and what pushes to others
)


def leave_out() -> None:
    """Let what is imported from now on find the modules of these packages one by one."""
    for name in PACKAGES:
        _make_known(name)


def _make_known(name: str) -> None:
    spec = find_spec(name)
    if name in sys.modules or spec is None or spec.origin is None:
        return
    package = module_from_spec(spec)
    vars(package)["__getattr__"] = lambda asked: _ask(package, asked)
    sys.modules[name] = package
    above, _, own = name.rpartition(".")
    if above:
        setattr(sys.modules[above], own, package)


def _ask(package: ModuleType, name: str) -> object:
    """Give what the package does not have yet: a module of it, or else what all of it has."""
    if find_spec(f"{package.__name__}.{name}") is not None:
        return import_module(f"{package.__name__}.{name}")
    del vars(package)["__getattr__"]
    spec = package.__spec__
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(package)
    return getattr(package, name)

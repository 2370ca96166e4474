"""What a changed configuration changes in a running proxy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from icr_proxy.config.callerconfig import NOBODY
from icr_proxy.config.spec import Part, Path, dotted, leaves, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from icr_proxy.config.models import Config


def restart_needed(old: Config, new: Config) -> tuple[str, ...]:
    """Name the keys that differ and take effect only on a restart."""
    opens = [("callers",)] if old.callers and not new.callers else []
    return tuple(dotted(path) for path in (*_fixed_changes(old, new, ()), *opens))


def effective(old: Config, new: Config) -> Config:
    """Give the old configuration with those values of the new one that can be taken over.

    If the last caller goes, nobody is let in: that everybody is takes a restart. So a key can be
    withdrawn in any way, and a slip of an editor opens nothing.
    """
    if old.callers and not new.callers:
        new = replace(new, callers=(NOBODY,))
    config: Config = _mixed(old, new)
    return config


def _fixed_changes(old: Any, new: Any, path: Path) -> Iterator[Path]:
    for part in parts(type(old)).values():
        here, before, after = (*path, part.name), getattr(old, part.name), getattr(new, part.name)
        if before == after or _is_live(part):
            continue
        if part.key or _reshaped(before, after):
            yield here
        elif part.many:
            for at, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from _fixed_changes(one, other, (*here, str(at)))
        else:
            yield from _fixed_changes(before, after, here)


def _is_live(part: Part) -> bool:
    """Tell whether a key, or a list of sections with all their keys, takes effect on reload."""
    if part.key:
        return part.key.live
    return part.many and all(key.live for _, _, key in leaves(part.section))


def _reshaped(before: Any, after: Any) -> bool:
    """Tell whether a section came or went, so that there is nothing to compare key by key."""
    if before is None or after is None:
        return True
    return isinstance(before, tuple) and len(before) != len(after)


def _mixed(old: Any, new: Any) -> Any:
    changes = {}
    for part in parts(type(old)).values():
        before, after = getattr(old, part.name), getattr(new, part.name)
        if part.key or _is_live(part):
            changes[part.name] = after if _is_live(part) else before
        elif _reshaped(before, after):
            changes[part.name] = before
        elif part.many:
            changes[part.name] = tuple(map(_mixed, before, after))
        else:
            changes[part.name] = _mixed(before, after)
    return replace(old, **changes)

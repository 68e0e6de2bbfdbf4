"""Comparison of settings: results and checkpoints can only be resumed with the same settings."""

from collections.abc import Iterator
from typing import Any


def find_changes(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield one clause per setting that differs, such as `"composition.size was 32 and is 64"`.

    Mappings and lists of equal length are compared entry by entry, so that a change is reported where it is.

    Args:
        before: Plain values (numbers, strings, lists, dicts) as they were saved.
        now: The same settings today.
        name: Name of the compared value; those of its entries are appended to it.

    Yields:
        The name, the value before, and the value now. A key that one side lacks counts as `None`.

    Example:
        >>> list(find_changes({"seed": 0, "data": {"size": 32}}, {"seed": 0, "data": {"size": 64}}))
        ['data.size was 32 and is 64']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from find_changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from find_changes(*pair, f"{name}[{index}]")
    elif before != now:
        yield f"{name} was {before!r} and is {now!r}"

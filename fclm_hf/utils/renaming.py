"""Renamed arguments, attributes and objects: the old name works for one release and warns with the new one."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar


Kind = TypeVar("Kind")


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that `old` is deprecated and called `new` now."""
    warnings.warn(f"{old} is deprecated and will be removed in 0.3.0: use {new}.", FutureWarning, stacklevel)


def accept_renamed(kind: type[Kind]) -> type[Kind]:
    """Make a class accept the old names in its `RENAMED` as keyword arguments and attributes.

    Args:
        kind: A class with a class attribute `RENAMED` that maps old names to new ones. `fclm train` honors the same
            mapping for the fields of YAML files and flags.

    Returns:
        The class itself.

    Example:
        >>> import warnings
        >>> from dataclasses import dataclass
        >>> from typing import ClassVar
        >>> from fclm_hf.utils.renaming import accept_renamed
        >>> @accept_renamed
        ... @dataclass
        ... class Batch:
        ...     batch_size: int
        ...     RENAMED: ClassVar[dict[str, str]] = {"size": "batch_size"}
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     Batch(size=4)
        Batch(batch_size=4)
        >>> str(caught[0].message)
        'Batch.size is deprecated and will be removed in 0.3.0: use batch_size.'
    """
    renamed: dict[str, str] = kind.RENAMED
    kind.__init__ = rename_arguments(renamed, prefix=f"{kind.__name__}.")(kind.__init__)
    for old, new in renamed.items():
        setattr(kind, old, _forward_attribute(kind.__name__, old, new))
    return kind


def rename_arguments(renamed: Mapping[str, str], prefix: str = "") -> Callable[[Callable], Callable]:
    """Return a decorator for a function that accepts the old names of keyword arguments.

    Args:
        renamed: Maps old names to new names.
        prefix: Prefix of the old name in the warning.

    Raises:
        TypeError: If the function is called with both the old and the new name of an argument.

    Example:
        >>> from fclm_hf.utils.renaming import rename_arguments
        >>> @rename_arguments({"size": "batch_size"})
        ... def count(batch_size):
        ...     return batch_size
        >>> count(batch_size=4)
        4
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            for old in renamed.keys() & kwargs.keys():
                new = renamed[old]
                if new in kwargs:
                    raise TypeError(f"{prefix}{old} is the old name of {new}: got both.")
                warn_renamed(f"{prefix}{old}", new)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def make_getattr(module: str, objects: Mapping[str, Any], removed: Mapping[str, str] | None = None) -> Callable:
    """Return a module-level `__getattr__` that resolves renamed objects and explains removed ones.

    Args:
        module: Name of the module, for messages.
        objects: Maps old names to the objects that are exported under new names.
        removed: Maps the names of removed objects to advice on what to use instead.

    Example:
        >>> from fclm_hf.utils.renaming import make_getattr
        >>> make_getattr("package", {}, {"Loader": "use Reader."})("Loader")
        Traceback (most recent call last):
        AttributeError: package.Loader was removed in 0.2.0: use Reader.
    """

    def get(name: str) -> Any:
        if name in objects:
            warn_renamed(f"{module}.{name}", objects[name].__name__)
            return objects[name]
        if removed and name in removed:
            raise AttributeError(f"{module}.{name} was removed in 0.2.0: {removed[name]}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return get


def _forward_attribute(owner: str, old: str, new: str) -> property:
    """Return a property that reads and writes the attribute `new`."""

    def get(self: Any) -> Any:
        warn_renamed(f"{owner}.{old}", new)
        return getattr(self, new)

    def put(self: Any, value: Any) -> None:
        warn_renamed(f"{owner}.{old}", new)
        setattr(self, new, value)

    return property(get, put)

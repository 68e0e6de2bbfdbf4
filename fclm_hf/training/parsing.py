"""Dataclasses from the mappings of a YAML file: checked types, renamed fields, errors that name the field."""

import types
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from ..utils.renaming import warn_renamed


Kind = TypeVar("Kind")
_NUMBERS = (int, float, str)  # YAML reads 1e-5 as a string


def parse_yaml(value: Any, name: str) -> Any:
    """Parse the value of a field if it is YAML text, as on the command line.

    Args:
        value: The value.
        name: Name of the field, for the error.

    Raises:
        ValueError: If the text is not valid YAML.
    """
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError as error:
        raise ValueError(f"{name} cannot be parsed as YAML: {error}") from error


def check_known(names: Collection[str], accepted: Collection[str], place: str) -> None:
    """Check that every name is accepted.

    Args:
        names: Names that were given.
        accepted: Names that exist.
        place: Name of the place where they were given, for the error.

    Raises:
        ValueError: If a name is unknown. The error suggests the closest accepted name, or lists all of them.
    """
    for name in names:
        if name not in accepted:
            close = get_close_matches(str(name), accepted, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it must be one of {', '.join(sorted(accepted))}."
            raise ValueError(f"{place} does not take {name!r}: {hint}")


def list_renamed(*kinds: type) -> dict[str, str]:
    """Return the old names of the fields of some dataclasses, mapped to the new ones.

    A dataclass declares them as `RENAMED: ClassVar[dict[str, str]] = {"old": "new"}`. Old names are
    accepted for one release.
    """
    return {old: new for kind in kinds for old, new in getattr(kind, "RENAMED", {}).items()}


def rename_fields(
    values: Mapping[str, Any], renamed: Mapping[str, str], place: str, warn: bool = True
) -> dict[str, Any]:
    """Return `values` with the new names of renamed fields.

    Args:
        values: Values by field name, old or new.
        renamed: Old names mapped to new ones, see [`list_renamed`].
        place: Name of `values` in errors and warnings.
        warn: Whether to warn about old names; files that a program wrote need no warning.

    Raises:
        ValueError: If a field is given under both names.
    """
    result: dict[str, Any] = {}
    for name, value in values.items():
        new = renamed.get(name, name)
        if new in result:
            raise ValueError(f"{place}: {new} is given twice, once under its old name.")
        if new != name and warn:
            warn_renamed(f"{place}: {name}", new)
        result[new] = value
    return result


def build_dataclass(kind: type[Kind], values: Any, place: str, reserved: Collection[str] = ()) -> Kind:
    """Build an instance of a dataclass from a mapping.

    Args:
        kind: The dataclass.
        values: Values by field name as YAML yields them: lists stand for tuples, integers for floats. Old names of
            renamed fields are accepted with a warning.
        place: Name of `values` in errors.
        reserved: Fields that `values` may not set.

    Returns:
        The instance.

    Raises:
        ValueError: If `values` is not a mapping, if a field is unknown or missing, or if a value has the wrong type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{place} must be a mapping, got {values!r}.")
    values = rename_fields(values, list_renamed(kind), place)
    known = {field.name: field for field in fields(kind) if field.init and field.name not in reserved}
    check_known(values, known, place)
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{place} must contain {name!r}, got {', '.join(values) or 'nothing'}.")
    hints = get_type_hints(kind)
    return kind(**{name: convert(value, hints[name], f"{place}.{name}") for name, value in values.items()})


def convert(value: Any, hint: Any, place: str) -> Any:
    """Convert a value that YAML yields to the type of a field.

    Args:
        value: The value.
        hint: Type hint of the field: a union, list, tuple, dict or plain type.
        place: Name of the field in errors.

    Returns:
        The converted value.

    Raises:
        ValueError: If the value does not have the type.
    """
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        for option in inner:
            with suppress(ValueError):
                return convert(value, option, place)
    elif origin is Any or (origin in (str, int, bool, types.NoneType) and type(value) is origin):
        return value
    elif origin is float and type(value) in _NUMBERS:
        with suppress(ValueError):
            return float(value)
    elif origin is dict and isinstance(value, dict):
        return {key: convert(each, inner[1], f"{place}.{key}") for key, each in value.items()}
    elif origin in (list, tuple) and isinstance(value, (list, tuple)):
        items = inner if origin is tuple and ... not in inner else inner[:1] * len(value)
        if len(items) == len(value):
            return origin(convert(each, item, place) for each, item in zip(value, items, strict=True))
    wanted = hint if inner else getattr(hint, "__name__", hint)
    raise ValueError(f"{place} must be {wanted}, got {value!r}.")


__all__ = ["build_dataclass", "check_known", "convert", "list_renamed", "parse_yaml", "rename_fields"]

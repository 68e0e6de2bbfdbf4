"""Dataclasses from the mappings of a YAML file, with errors that name the field."""

import types
from collections.abc import Collection
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints


Kind = TypeVar("Kind")
_NUMBERS = (int, float, str)  # YAML reads 1e-5 as a string


def refuse_unknown(names: Collection[str], accepted: Collection[str], place: str) -> None:
    """Raises:
    ValueError: one of `names` is not accepted; says which is nearest, or all that are.
    """
    for name in names:
        if name not in accepted:
            near = get_close_matches(str(name), accepted, n=1)
            hint = f"did you mean {near[0]}?" if near else f"accepted are {', '.join(sorted(accepted))}."
            raise ValueError(f"{place} does not take {name!r}: {hint}")


def build_dataclass(kind: type[Kind], values: Any, place: str, reserved: Collection[str] = ()) -> Kind:
    """An instance of a dataclass.

    Args:
        kind: the dataclass.
        values: field to value, as YAML gives them: lists stand for tuples, integers for floats.
        place: how errors call it.
        reserved: fields that are set elsewhere.

    Raises:
        ValueError: not a mapping, a field that is unknown or missing, or a value of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{place} must be a mapping, got {values!r}.")
    known = {field.name: field for field in fields(kind) if field.init and field.name not in reserved}
    refuse_unknown(values, known, place)
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{place} lacks {name!r}.")
    hints = get_type_hints(kind)
    return kind(**{name: convert(value, hints[name], f"{place}.{name}") for name, value in values.items()})


def convert(value: Any, hint: Any, place: str) -> Any:
    """`value` as the type that a field wants.

    Raises:
        ValueError: it is of another type.
    """
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        for option in inner:
            try:
                return convert(value, option, place)
            except ValueError:
                continue
    elif origin is Any or (origin in (str, int, bool, types.NoneType) and type(value) is origin):
        return value
    elif origin is float and type(value) in _NUMBERS:
        try:
            return float(value)
        except ValueError:
            pass
    elif origin is dict and isinstance(value, dict):
        return {key: convert(each, inner[1], f"{place}.{key}") for key, each in value.items()}
    elif origin in (list, tuple) and isinstance(value, (list, tuple)):
        items = inner if origin is tuple and ... not in inner else inner[:1] * len(value)
        if len(items) == len(value):
            return origin(convert(each, item, place) for each, item in zip(value, items, strict=True))
    wanted = hint if inner else getattr(hint, "__name__", hint)
    raise ValueError(f"{place} must be {wanted}, got {value!r}.")

"""Command line of `fclm train`: a YAML file and flags as checked arguments, with old names of renamed fields."""

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from .arguments import NESTED_FIELDS, Arguments, DataArguments, ModelArguments, RunArguments
from .parsing import check_known, list_renamed, parse_yaml, rename_fields


USAGE = "%(prog)s CONFIG.yaml [--field value ...] [--field.key value ...]"


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Appends the default value to a help text, unless it is empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Return the help text of an argument."""
        if isinstance(action, argparse._StoreFalseAction):  # added by transformers for each flag that is on by default
            return f"Same as --{action.dest} false."
        return super()._get_help_string(action) if action.default or action.default in (0, False) else action.help


class _Parser(HfArgumentParser):
    """Parser that raises an exception instead of exiting."""

    def error(self, message: str) -> None:
        """Raise a `ValueError`."""
        raise ValueError(message)


def rename_all_fields(values: Mapping[str, Any], place: str, warn: bool = True) -> dict[str, Any]:
    """Return arguments with the new names of renamed fields, including those in mappings such as `composition`.

    Args:
        values: Values by field name, old or new.
        place: Name of `values` in errors and warnings.
        warn: Whether to warn about old names.

    Raises:
        ValueError: If a field is given under both names.
    """
    values = rename_fields(values, list_renamed(ModelArguments, DataArguments, RunArguments), place, warn)

    def rename_nested(value: Any, renamed: dict[str, str], name: str) -> Any:
        if isinstance(value, list):
            return [rename_nested(each, renamed, f"{name}[{index}]") for index, each in enumerate(value)]
        return rename_fields(value, renamed, f"{place}: {name}", warn) if isinstance(value, dict) else value

    for name, kind in NESTED_FIELDS.items():
        if name in values:
            values[name] = rename_nested(values[name], list_renamed(kind), name)
    return values


def parse_arguments(
    argv: Sequence[str], program: str = "fclm train", config: Mapping[str, Any] | None = None
) -> Arguments:
    """Parse the command line of a run.

    Args:
        argv: Optionally a YAML file of `field: value`, see [`read_config`], then flags, which take precedence: `--field
            value ...`, or `--field.key value` for one key of a mapping. Old names of renamed fields are accepted with a
            warning.
        program: Name of the program in `--help`.
        config: Content of the YAML file, if `argv` starts with none.

    Returns:
        The checked arguments.

    Raises:
        ValueError: If an argument is unknown, missing or not accepted. The message is one line and names the field.
        OSError: If a YAML file does not exist.
    """
    parser = _Parser(
        (ModelArguments, DataArguments, RunArguments),
        prog=program,
        usage=USAGE,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    names = [action.dest for action in parser._actions if action.dest != "help"]
    argv = list(argv)
    config, place = copy.deepcopy(dict(config or {})), program
    if argv and not argv[0].startswith("-"):
        place = argv.pop(0)
        config = read_config(place)
    check_known(config, names, place)
    flags, nested = _split_flags(argv)
    for section, values in rename_all_fields(nested, program).items():
        if not isinstance(config.setdefault(section, {}), dict):
            raise ValueError(f"--{section}.{next(iter(values))}: {section} is not a mapping.")
        config[section].update(values)
    # the values of the YAML file go through the parser too, which checks them like flags
    parsed = parser.parse_args_into_dataclasses(
        [*_make_flags(config), *_rename_flags(flags, program)], return_remaining_strings=True, look_for_args_file=False
    )
    for word in parsed[3]:
        if word.startswith("-"):
            check_known([word.lstrip("-").partition("=")[0]], names, program)
        raise ValueError(f"{program} does not take {word!r} without a flag in front of it.")
    return Arguments(*parsed[:3])


def read_config(path: str | Path, including: tuple[Path, ...] = ()) -> dict[str, Any]:
    r"""Return the content of a YAML file, with the new names of renamed fields.

    The field `defaults` names one or several other files, relative to this one, whose fields it starts from: later ones
    win, and the file itself wins over all of them. Mappings are merged key by key; lists are replaced.

    Args:
        path: The file.
        including: Files that are being read because of each other.

    Raises:
        ValueError: If a file is not YAML or not a mapping, or includes itself.
        OSError: If a file does not exist.

    Example:
        >>> from pathlib import Path
        >>> from fclm_hf.training.command_line import read_config
        >>> _ = Path("base.yaml").write_text("model: lite\nsettings: {distillation: none, prompts: text}")
        >>> _ = Path("box.yaml").write_text("defaults: base.yaml\nsettings: {prompts: box}")
        >>> read_config("box.yaml")
        {'model': 'lite', 'settings': {'distillation': 'none', 'prompts': 'box'}}
    """
    path = Path(path)
    if path.resolve() in including:
        raise ValueError(f"defaults of {including[-1]} must not lead back to {path}.")
    config = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(config, dict):
        raise ValueError(f"{path} must contain a mapping of fields to values, got {type(config).__name__}.")
    defaults = config.pop("defaults", [])
    defaults = [defaults] if isinstance(defaults, str) else defaults
    if not (isinstance(defaults, list) and all(isinstance(each, str) for each in defaults)):
        raise ValueError(f"defaults of {path} must be a file or a list of files, got {defaults!r}.")
    merged: dict[str, Any] = {}
    for each in defaults:
        merged = merge_configs(merged, read_config(path.parent / each, (*including, path.resolve())))
    return merge_configs(merged, rename_all_fields(config, str(path)))


def merge_configs(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `changes`; mappings in both are merged key by key.

    Args:
        base: Values by field name.
        changes: Values that win.
    """
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(merged.get(name), dict) and isinstance(value, dict)
        merged[name] = merge_configs(merged[name], value) if both else value
    return merged


def _split_flags(argv: list[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Split off `--field.key value` and `--field.key=value`: return the other words, and values by field and key."""
    rest, nested = [], {}
    words = iter(argv)
    for word in words:
        name, is_joined, value = word.partition("=")
        if name.startswith("--") and "." in name:
            section, _, key = name[2:].partition(".")
            nested.setdefault(section, {})[key] = parse_yaml(value if is_joined else next(words, None), name)
        else:
            rest.append(word)
    return rest, nested


def _rename_flags(argv: list[str], program: str) -> list[str]:
    """Return the command line with the new names of renamed flags."""
    renamed = list_renamed(ModelArguments, DataArguments, RunArguments)
    flags = [word.partition("=")[0][2:].replace("-", "_") if word.startswith("--") else "" for word in argv]
    given = {flag: None for flag in flags if flag in renamed or flag in renamed.values()}
    rename_fields(given, renamed, program)  # only for its warnings and errors
    return [
        f"--{renamed[flag]}{word[2 + len(flag) :]}" if flag in renamed else word
        for flag, word in zip(flags, argv, strict=True)
    ]


def _make_flags(config: dict[str, Any]) -> list[str]:
    """Return the command line that gives the values of a YAML file."""

    def write(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    flags = []
    for name, value in config.items():
        if isinstance(value, list):
            flags += [f"--{name}", *map(write, value)] if value else []
        elif value is not None:
            flags.append(f"--{name}={write(value)}")
    return flags


__all__ = ["merge_configs", "parse_arguments", "read_config", "rename_all_fields"]

"""Hooks of MkDocs: reference pages from the package itself, and pages whose text lives outside docs/.

`<!-- api: fclm_hf.metrics -->` becomes one mkdocstrings directive for each name in the package's `__all__`, and
`<!-- options: matte -->` a table of the options of `fclm matte`, so that neither can go out of date.
"""

import dataclasses
import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).parents[1]
PACKAGES = tuple(
    f"fclm_hf{name}" for name in ("", ".data", ".training", ".bulk", ".evaluation", ".metrics", ".hub", ".reproduction")
)
OUTSIDE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "images/overview.jpg": "examples/photos/overview.jpg",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files whose one home is outside docs/."""
    for uri, path in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the `api` and `options` comments of a page."""
    markdown = re.sub(r"<!-- api: (\S+) -->", lambda match: write_api(match[1]), markdown)
    return re.sub(r"<!-- options: ([\w-]+) -->", lambda match: write_options(match[1]), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Render what docstrings write as transformers does: [`FCLMModel.forward`], and (`int`, *optional*) after names."""
    objects = {name.rpartition(".")[2]: path for package in PACKAGES for name, path in list_public(package)}

    def link(match: re.Match[str]) -> str:
        name = match[1].removeprefix("~")
        owner, _, member = name.partition(".")
        path = objects.get(owner, owner) + (f".{member}" if member else "")
        shown = name.rpartition(".")[2] if match[1].startswith("~") else name
        optional = "" if name in objects else "optional "  # docstrings also name what the reference leaves out
        return f'<autoref {optional}identifier="{path}"><code>{shown}</code></autoref>'

    def unquote(match: re.Match[str]) -> str:
        text = re.sub(r"`([^`]*)`", r"<code>\1</code>", match[1])
        return "(" + re.sub(r"[*]([^*]*)[*]", r"<em>\1</em>", text) + ")"

    html = re.sub(r"\(<code>([^<]*`[^<]*)</code>\)", unquote, html)
    return re.sub(r"\[<code>([\w.~]+)</code>\]", link, html)


def list_public(package: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each public class and function of a package, and the path of its definition."""
    module = importlib.import_module(package)
    for name in module.__all__:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield f"{package}.{name}", f"{value.__module__}.{value.__qualname__}"


def write_api(package: str) -> str:
    """Return mkdocstrings directives for the public classes and functions of a package, classes first."""
    paths = [path for _, path in list_public(package)]
    paths.sort(key=lambda path: not path.rpartition(".")[2][0].isupper())
    return "\n\n".join(f"::: {path}" for path in paths)


def write_options(command: str) -> str:
    """Return a Markdown table of the options of a command of `fclm`."""
    rows = list(list_training_fields() if command == "train" else list_options(command))
    table = ["| option | what it does | default |", "|---|---|---|"]
    escape = {ord("|"): r"\|", ord("\n"): " ", ord("<"): "&lt;"}
    table += [f"| `{name}` | {text.translate(escape)} | {default} |" for name, text, default in rows]
    return "\n".join(table)


def list_options(command: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, help, and default of the arguments and options of a command that typer parses."""
    import typer

    from fclm_hf.cli.main import app

    for option in typer.main.get_command(app).commands[command].params:
        is_option = option.opts[0].startswith("-")
        name = ", ".join(option.opts) if is_option else option.metavar or option.name.upper()
        yield name, option.help or "", show_default(option.default)


def list_training_fields() -> Iterator[tuple[str, str, str]]:
    """Yield name, help, and default of the fields of `fclm train`."""
    from fclm_hf.training import arguments

    for group in (arguments.ModelArguments, arguments.DataArguments, arguments.RunArguments):
        for each in dataclasses.fields(group):
            default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
            yield f"--{each.name}", each.metadata["help"], show_default(default)


def show_default(value: Any) -> str:
    """Return a default as Markdown; nothing where there is none."""
    value = getattr(value, "value", value)
    if value in (None, dataclasses.MISSING, ...) or value is False or value in ("", [], {}, ()) or callable(value):
        return ""
    return f"`{value}`"

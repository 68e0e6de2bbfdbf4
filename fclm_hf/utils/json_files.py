"""JSON files as transformers writes them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def edit_json(path: Path) -> Iterator[dict[str, Any]]:
    """The content of a JSON file; what becomes of it in the `with` statement is written back."""
    content = json.loads(path.read_text(encoding="utf-8"))
    yield content
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")

"""Extension of griffe, which reads the docstrings of the reference."""

import re
from typing import Any

import griffe


class SingularExample(griffe.Extension):
    """Read the section `Example:` of Google style, which griffe takes for a note, as `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section in the docstring of a module, class, function, or attribute."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)

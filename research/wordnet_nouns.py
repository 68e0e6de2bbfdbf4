"""Reads WordNet's nouns for teach_names.py; takes the files of Debian's `wordnet-base` or of any WordNet 3.0."""

import re
from collections import Counter
from functools import cache
from pathlib import Path


class Nouns:
    """The nouns of WordNet, their senses and hypernyms.

    Senses are named as ImageNet names its classes: "n" and the 8-digit offset of the sense, such as "n02123045".

    Args:
        folder: Folder with data.noun, index.noun and cntlist.rev.

    Attributes:
        words: The words of each sense, with spaces.
        parents: The hypernyms of each sense.
        senses: The senses of each noun in lower case, the most common first.
        counts: How often each noun occurs in WordNet's tagged texts and in its definitions.

    Raises:
        OSError: If a file is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.words: dict[str, list[str]] = {}
        self.parents: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        for line in self._lines(folder / "data.noun"):
            record, definition = line.split(" | ", 1)
            self.counts.update(set(re.findall("[a-z]+", definition)))
            fields = record.split()
            sense, num_words = f"n{fields[0]}", int(fields[3], 16)
            self.words[sense] = [word.replace("_", " ") for word in fields[4 : 4 + 2 * num_words : 2]]
            pointers = fields[5 + 2 * num_words :]
            self.parents[sense] = [
                f"n{offset}" for kind, offset in zip(pointers[::4], pointers[1::4], strict=False) if kind in ("@", "@i")
            ]
        self.senses = {}
        for line in self._lines(folder / "index.noun"):
            fields = line.split()
            self.senses[fields[0].replace("_", " ")] = [f"n{offset}" for offset in fields[-int(fields[2]) :]]
        for line in (folder / "cntlist.rev").read_text(encoding="ascii").splitlines():
            key, _, count = line.split()
            word, _, rest = key.partition("%")
            if rest.startswith("1:"):  # a noun
                self.counts[word.replace("_", " ")] += int(count)
        self.ancestors = cache(self._find_ancestors)

    @staticmethod
    def _lines(path: Path) -> list[str]:
        return [line for line in path.read_text(encoding="ascii").splitlines() if not line.startswith(" ")]

    def _find_ancestors(self, sense: str) -> tuple[str, ...]:
        """Return the sense itself and all above it, the nearest first."""
        found, level = {sense: None}, [sense]
        while level:
            level = [parent for below in level for parent in self.parents[below] if parent not in found]
            found.update(dict.fromkeys(level))
        return tuple(found)

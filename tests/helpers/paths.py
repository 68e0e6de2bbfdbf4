"""Folders of the repository."""

from pathlib import Path


ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
EXAMPLES = ROOT / "examples"
FIXTURES = ROOT / "tests" / "fixtures"
HELPERS = ROOT / "tests" / "helpers"
PHOTOS = EXAMPLES / "photos"
RESEARCH = ROOT / "research"

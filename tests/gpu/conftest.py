"""One table of all figures at the end: with a GPU, or with -v."""

import pytest
from device_checks import Rows, format_table


TABLE = pytest.StashKey[Rows]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(TABLE, [])


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Rows:
    """Rows of the table: device, what has been measured, figure."""
    return request.config.stash.setdefault(TABLE, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(TABLE, [])
    if rows and (config.option.verbose > 0 or any(device == "cuda" for device, _, _ in rows)):
        terminalreporter.section("figures of the devices")
        for line in format_table(rows):
            terminalreporter.write_line(line)

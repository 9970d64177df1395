"""Options of the test run, and what every test must leave as it found it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# What a process ignores, all commands that it starts ignore, too.
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def pytest_configure(config: pytest.Config) -> None:
    # A shell without job control starts background commands deaf to Ctrl-C; tests are about those that hear it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def ignored_signals() -> set[signal.Signals]:
    """As the kernel sees it: libraries set them without Python, too."""
    status = Path("/proc/self/status")
    if not status.exists():
        return {number for number in HEEDED if signal.getsignal(number) is signal.SIG_IGN}
    mask = next(int(line.split()[1], 16) for line in status.read_text().splitlines() if line.startswith("SigIgn"))
    return {number for number in HEEDED if mask >> (number - 1) & 1}


@pytest.fixture(autouse=True)
def signals_are_heeded_after_it() -> Iterator[None]:
    yield
    deaf = ignored_signals()
    for number in deaf:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    assert not deaf, "this test leaves its process, and all commands of later tests, deaf to signals"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--forbid-skips",
        action="store_true",
        help="fail when a test outside tests/gpu skips: for machines that have all the software",
    )

    chaos = parser.getgroup("chaos", "how much happens to the run of tests/system/test_chaos.py")
    chaos.addoption("--chaos-faults", type=int, default=0, metavar="N", help="draw N faults instead of the short plan")
    chaos.addoption("--chaos-seed", type=int, default=1, metavar="S", help="from this seed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    faults = config.getoption("--chaos-faults")
    for item in items:
        if faults and item.path.name == "test_chaos.py":
            item.add_marker(pytest.mark.timeout(120 + 90 * faults))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport:
    report: pytest.TestReport = yield
    if report.skipped and item.config.getoption("--forbid-skips") and item.get_closest_marker("gpu") is None:
        report.outcome = "failed"
        report.longrepr = f"skipped although skips are forbidden here: {report.longrepr}"
    return report

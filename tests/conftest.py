"""Options of the test run."""

import pytest


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

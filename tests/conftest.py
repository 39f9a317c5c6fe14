"""What holds for all tests in Python: where CI=true, a skipped test is a failed one; the programs
that tests start get SIGINT and SIGHUP, also where this run is in a shell's background or under
nohup; no example of a property fails because the machine was busy; and no process takes more memory
than MEMORY, so that a limit that fails fails its test and not the machine."""

import os
import resource
import signal

import hypothesis
import pytest

hypothesis.settings.register_profile("milterkit", deadline=None)
hypothesis.settings.load_profile("milterkit")

CI = os.environ.get("CI") == "true"

for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

#: Bytes for each process of a run, and for those that it starts; 512 stacks take half of it.
MEMORY = 8 << 30

if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # what it reserves for itself would count
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = min(each for each in (soft, hard, MEMORY) if each != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _as_failure(report: pytest.TestReport | pytest.CollectReport) -> None:
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        where = report.longrepr
        reason = where[2] if isinstance(where, tuple) else where
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped although CI=true: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():  # type: ignore[no-untyped-def]
    """For tests."""
    report = yield
    _as_failure(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():  # type: ignore[no-untyped-def]
    """For whole files that skip themselves."""
    report = yield
    _as_failure(report)
    return report

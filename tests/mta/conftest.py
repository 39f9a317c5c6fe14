"""Fixtures of the tests with a real Postfix, and its log where one fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postfix import Postfix, missing
from running import Filter

RUNNING: list[Filter] = []  # for the report of a failure
LOG = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def postfix() -> Iterator[Postfix]:
    """One private Postfix for all tests."""
    if why := missing():
        pytest.skip(why)
    with Postfix() as running:
        yield running


@pytest.fixture(scope="module", params=["runmilter", "lowlevel"])
def scripted(
    request: pytest.FixtureRequest, postfix: Postfix, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filter]:
    """The filter that follows plans, at Postfix's first filter socket, for a file of tests; once
    with its methods found by runmilter, once with functions given to the `milter` module."""
    folder = tmp_path_factory.mktemp("scripted")
    more = ("TEMPFAIL", request.param)
    with Filter("scripted.py", f"unix:{postfix.one}", folder, *more) as it:
        RUNNING.append(it)
        yield it
        RUNNING.remove(it)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a filter that a test starts itself."""
    return tmp_path / "filter"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item):  # type: ignore[no-untyped-def]
    """Notes how long Postfix's log is before a test."""
    result = yield
    if postfix := getattr(item, "funcargs", {}).get("postfix"):
        item.stash[LOG] = len(postfix.log())
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def]
    """Adds what Postfix and the filters said during a failed test."""
    report = yield
    if report.failed and (postfix := getattr(item, "funcargs", {}).get("postfix")):
        report.sections.append(("Postfix", postfix.log()[item.stash.get(LOG, 0) :]))
        for each in RUNNING:
            report.sections.append(("filter", each.stderr()))
    return report

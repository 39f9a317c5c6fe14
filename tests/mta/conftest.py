"""Fixtures of the tests with real MTAs, and their logs where a test fails."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mta import Mta
from postfix import Postfix
from running import Filter
from sendmail import Sendmail

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "examples"), str(ROOT / "tests" / "examples")]  # for test_examples.py

MTAS: list[type[Mta]] = [Postfix, Sendmail]
RUNNING: list[Filter] = []  # for the report of a failure
LOG = pytest.StashKey[int]()


def one(kind: type[Mta]) -> Iterator[Mta]:
    """A private MTA."""
    if why := kind.missing():
        pytest.skip(why)
    with kind() as running:
        yield running


@pytest.fixture(scope="session")
def postfix() -> Iterator[Mta]:
    """One private Postfix for all tests."""
    yield from one(Postfix)


@pytest.fixture(scope="session")
def sendmail() -> Iterator[Mta]:
    """One private Sendmail for all tests."""
    yield from one(Sendmail)


@pytest.fixture(scope="session", params=[kind.name for kind in MTAS])
def mta(request: pytest.FixtureRequest) -> Mta:
    """Each MTA in turn. A file of tests for one of them overrides this."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Mta)
    return found


@pytest.fixture(scope="module", params=["runmilter", "lowlevel"])
def scripted(
    request: pytest.FixtureRequest, mta: Mta, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filter]:
    """The filter that follows plans, at the MTA's first filter socket, for a file of tests; once
    with its methods found by runmilter, once with functions given to the `milter` module."""
    folder = tmp_path_factory.mktemp("scripted")
    with Filter("scripted.py", f"unix:{mta.one}", folder, "TEMPFAIL", request.param) as it:
        RUNNING.append(it)
        yield it
        RUNNING.remove(it)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a filter that a test starts itself."""
    return tmp_path / "filter"


def mta_of(item: pytest.Item) -> Mta | None:
    """The MTA that a test uses."""
    found = getattr(item, "funcargs", {}).get("mta")
    return found if isinstance(found, Mta) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item):  # type: ignore[no-untyped-def]
    """Notes how long the MTA's log is before a test."""
    result = yield
    if mta := mta_of(item):
        item.stash[LOG] = len(mta.log())
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def]
    """Adds what the MTA and the filters said during a failed test."""
    report = yield
    if report.failed and (mta := mta_of(item)):
        report.sections.append((mta.name, mta.log()[item.stash.get(LOG, 0) :]))
        for each in RUNNING:
            report.sections.append(("filter", each.stderr()))
    return report

"""The pytest plugin: the fixture `mta`, sample messages, and sessions in the reports of failures.

On by itself where the package is installed. Nothing else in the package imports pytest.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from Milter.testing.mta import MTA, AnyMTA
from Milter.testing.result import Result
from Milter.testing.samples import SAMPLES
from Milter.testing.session import AnySession
from Milter.testing.table import table
from Milter.testing.target import Target

__all__: list[str] = []

_MARKER = (
    "milter(*, filter, **options): what the fixture `mta` gives messages to, a filter's class or "
    "factory, its file as FILE.py[:NAME], or a socket specification, and keywords of "
    "Milter.testing.MTA such as profile"
)
_KEPT = pytest.StashKey[AnyMTA[Any]]()


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def mta(request: pytest.FixtureRequest) -> Iterator[MTA]:
    """An MTA for the filter that @pytest.mark.milter names. What several markers say is put
    together: a test's own come before those of its class, and those before its module's."""
    options: dict[str, Any] = {}
    for marker in reversed([*request.node.iter_markers("milter")]):
        options |= marker.kwargs
    if "filter" not in options:
        raise pytest.UsageError(
            f"{request.node.nodeid}: the fixture mta needs @pytest.mark.milter(filter=...)"
        )
    with MTA(_target(request, options.pop("filter")), **options) as made:
        request.node.stash[_KEPT] = made
        yield made


_loaded: dict[tuple[str, str], Target] = {}  # each file once, as an import would be


def _target(request: pytest.FixtureRequest, given: Target) -> Target:
    """A filter as `milterkit send --to` takes it: a text may name a file, from the current folder
    or from that of the test's file."""
    from Milter.cli.exits import CommandError  # noqa: PLC0415 - only for those who need it
    from Milter.cli.load import split_target, target_of  # noqa: PLC0415

    if not isinstance(given, str):
        return given
    beside = str(request.path.parent / given)
    is_beside = (
        Path(split_target(beside)[0]).is_file() and not Path(split_target(given)[0]).exists()
    )
    text = beside if is_beside else given
    key = (text, os.getcwd())
    if key not in _loaded:
        try:
            _loaded[key] = target_of(text)
        except CommandError as error:
            raise pytest.UsageError(f"{request.node.nodeid}: {error}") from error.__cause__
    return _loaded[key]


@pytest.fixture
def sample_messages() -> Mapping[str, bytes]:
    """Messages by name, Milter.testing.samples.SAMPLES."""
    return SAMPLES


@pytest.fixture(params=SAMPLES)
def sample_message(request: pytest.FixtureRequest) -> bytes:
    """Each of the sample messages in turn: the test runs once for each."""
    return SAMPLES[request.param]


# ---------------------------------------------------------------------------------------- reports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the sessions that a failed test had to its report."""
    report = yield
    if call.when == "call" and call.excinfo and report.failed:
        sessions = _sessions(item, call.excinfo)
        report.sections += [(f"milter session{name}", text) for name, text in sessions]
    return report


def _sessions(
    item: pytest.Item, raised: pytest.ExceptionInfo[BaseException]
) -> Iterator[tuple[str, str]]:
    """Sessions as text, with their names: of the results, MTAs and sessions that the functions
    under way hold, and of the fixture's."""
    found: dict[int, tuple[str, object]] = {}
    for entry in raised.traceback:
        ours = entry.frame.f_globals.get("__name__", "").startswith("Milter.")
        for name, value in entry.frame.f_locals.items():
            if isinstance(value, Result | AnyMTA | AnySession):
                shown = f": {name}" if name.isidentifier() and not ours else ""
                found.setdefault(id(value), (shown, value))
    if kept := item.stash.get(_KEPT, None):
        found.setdefault(id(kept), ("", kept))
    told = {key for key, (_, value) in found.items() if isinstance(value, Result)}
    for name, value in found.values():
        if isinstance(value, Result):
            yield name, str(value)
        elif isinstance(value, AnyMTA | AnySession):
            latest = value.latest if isinstance(value, AnyMTA) else None
            session = value.current if isinstance(value, AnyMTA) else value
            if latest and id(latest) not in told:
                told.add(id(latest))
                yield name, str(latest)
            if session and (steps := session.steps()) and id(session) not in told:
                told.add(id(session))
                yield f"{name}, without an outcome", "\n".join(table(steps))

"""What the transcripts need: the C filter, compiled here, and filter processes. At the end of the
run, the table of what they cover."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import cases, table, transcripts
from play import TAGS, Filters, Programs

HERE = Path(__file__).parent
BUILT = HERE.parents[1] / "build" / "libmilter" / "src" / "libmilter"
LIBRARY = Path(os.environ.get("MILTERKIT_LIBMILTER", BUILT))
ORACLE_PYTHON = os.environ.get("MILTERKIT_ORACLE_PYTHON", "/usr/bin/python3")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-std=gnu17")


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The filter in C, linked with Debian's libmilter."""
    if not Path("/usr/include/libmilter/mfapi.h").exists():
        pytest.skip("libmilter-dev is not installed")
    output = tmp_path_factory.mktemp("transcripts") / "scripted"
    source = HERE / "filters" / "scripted.c"
    compiler = os.environ.get("CC", "cc")
    subprocess.run((compiler, *WARNINGS, "-O1", "-o", output, source, "-lmilter"), check=True)
    return output


@pytest.fixture(scope="session")
def oracle_python() -> str:
    """An interpreter that has the older package, and not ours."""
    check = "import Milter, sys; sys.exit(hasattr(Milter, 'Server'))"
    if subprocess.run([ORACLE_PYTHON, "-c", check], check=False).returncode:
        pytest.skip("python3-milter is not installed")
    return ORACLE_PYTHON


@pytest.fixture(scope="session")
def filters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filters]:
    """Filters that run, for all tests."""
    folder = tmp_path_factory.mktemp("filters")
    found = Filters(Programs(folder / "none", LIBRARY, ORACLE_PYTHON, folder))
    yield found
    found.finish()


@pytest.fixture
def ready(implementation: str, filters: Filters, request: pytest.FixtureRequest) -> Filters:
    """The same, once what the implementation needs is there."""
    if "c" in TAGS[implementation]:
        filters.programs.scripted = request.getfixturevalue("scripted")
    if implementation == "pymilter":
        request.getfixturevalue("oracle_python")
    if implementation == "mkit-c":
        assert (LIBRARY / "libmilter.so.1.0.1").exists(), "make libmilter builds it"
    return filters


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases have each command in each state."""
    rows = table()
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    terminalreporter.section("transcripts by command and state")
    terminalreporter.line(f"{len(cases())} cases, {len(transcripts())} of them written in files")
    for row in rows:
        terminalreporter.line("  ".join(f"{cell:>{widths[i]}}" for i, cell in enumerate(row)))

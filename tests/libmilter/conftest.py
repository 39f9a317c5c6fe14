"""What the tests of libmilter for C share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from native import HERE, SONAME, Told, compile_c


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("told")
    source = HERE / "told.c"
    return Told(compile_c(folder / "told", "-D_GNU_SOURCE", source, "-lmilter", "-pthread"), folder)


@pytest.fixture(scope="session")
def theirs(told: Told) -> Path:
    """Where Debian's library is."""
    loaded = subprocess.check_output(("ldd", told.program), text=True)
    [line] = [line for line in loaded.splitlines() if SONAME in line]
    return Path(line.split("=>")[1].split()[0])

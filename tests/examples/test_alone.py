"""Examples that are programs as well: `python NAME.py` serves until SIGTERM, and ends well."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from Milter.testing import MTA
from shared.keys import rsa_key

EXAMPLES = Path(__file__).parents[2] / "examples"
SOCKET = "inet:8894@127.0.0.1"
PROGRAMS = sorted(
    file.name for file in EXAMPLES.glob("*.py") if 'if __name__ == "__main__":' in file.read_text()
    if file.name != "demo.py"  # which serves another one
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What some of them are told by the environment."""
    rsa_key(tmp_path / "key")
    (tmp_path / "disclaimer").write_text("Example Ltd\n")
    monkeypatch.setenv("DKIM_KEY", str(tmp_path / "key"))
    monkeypatch.setenv("DISCLAIMER", str(tmp_path / "disclaimer"))
    monkeypatch.setenv("GREYLIST_DATABASE", str(tmp_path / "greylist.db"))
    monkeypatch.setenv("DEFANG_FOLDER", str(tmp_path))


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_runs_by_itself(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder)
    of_it = [file for file in folder.glob(f"{Path(name).stem}.*") if SOCKET in file.read_text()]
    assert of_it  # the file, or its configuration
    for file in of_it:
        file.write_text(file.read_text().replace(SOCKET, f"unix:{tmp_path}/socket"))
    process = subprocess.Popen([sys.executable, folder / name])
    try:
        end = time.monotonic() + 20
        while not answers(tmp_path / "socket"):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)
        with MTA(tmp_path / "socket") as mta, mta.open() as session:
            assert session.negotiate() is not None
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()

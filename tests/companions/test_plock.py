"""Milter.plock: as the older package does it, and by several processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .oracle import agree

_UPDATE = """
import sys
from Milter.plock import PLock
for _ in range(20):
    lock = PLock(sys.argv[1])
    file = lock.wlock()
    file.write(str(int(open(sys.argv[1]).read()) + 1))
    lock.commit()
"""


def test_as_the_oracle(tmp_path: Path) -> None:
    """Each expression makes its own file, so both find the same."""

    def ask(steps: str) -> str:
        start = "P(n).unlink(True), P(n).write_text('old'), P(n).chmod(0o640), p := PLock(n)"
        look = "P(n).read_text(), P(n + '.lock').exists(), oct(P(n).stat().st_mode)"
        path = "__import__('pathlib').Path"
        return f"(lambda n, P: ({start}, {steps}, {look})[4:])({str(tmp_path / 'file')!r}, {path})"

    agree(
        "plock",
        [
            ask("p.lock().write('new'), p.commit()"),
            ask("p.lock().write('new'), p.commit(n + '.bak'), P(n + '.bak').read_text()"),
            ask("p.lock().write('new'), p.unlock()"),
            ask("p.unlock()"),
            ask("p.commit()"),
            ask("p.wlock().write('x'), p.commit()"),
            ask("p.lock(mode=0o600).write('x'), p.commit()"),
        ],
        {},
    )


def test_one_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")
    workers = [subprocess.Popen([sys.executable, "-c", _UPDATE, str(file)]) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert file.read_text() == "80"
    assert list(tmp_path.iterdir()) == [file]

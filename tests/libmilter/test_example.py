"""examples/filter.c, on the engine's own C API: it is short, it compiles, and it filters."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from Milter.testing import MTA, AddHeader
from native import OURS, ROOT, compile_c, wait_until

SOURCE = ROOT / "examples" / "filter.c"
LIBRARY = OURS.parents[1]  # of the engine


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """The socket of the example, which takes bodies of up to 1000 bytes."""
    words = ("-I", ROOT / "include", SOURCE, LIBRARY / "libmilterkit.so")
    program = compile_c(tmp_path / "filter", *words, f"-Wl,-rpath,{LIBRARY}")
    path = tmp_path / "socket"
    with subprocess.Popen((program, f"unix:{path}", "1000")) as process:
        try:
            wait_until(path.exists, "the filter's socket")
            yield path
        finally:
            process.kill()


def test_it_is_short() -> None:
    assert len(SOURCE.read_text().splitlines()) < 60


def test_it_filters(path: Path) -> None:
    with MTA(f"unix:{path}") as mta:
        for size, verdict in ((1000, "accepted"), (1001, "rejected"), (10, "accepted")):
            body = b"x" * (size - 2) + b"\r\n"
            result = mta.send(b"Subject: hi\r\n\r\n" + body, "a@example.org", ["b@example.org"])
            assert result.verdict == verdict
            if verdict == "accepted":
                assert result.changes == (AddHeader("X-Body", f"{size} bytes"),)
            else:
                assert result.reply is not None
                assert str(result.reply) == "552 5.3.4 it is too big"

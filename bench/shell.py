"""Running the commands of the set-up: output goes to a log, failure is an error."""

from __future__ import annotations

import subprocess
from pathlib import Path


class BenchError(Exception):
    """Something that the benchmark needs failed. The text says what and what to do; `short` says
    what in a line."""

    def __init__(self, short: str, more: str = "") -> None:
        super().__init__(f"{short}\n{more}".rstrip())
        self.short = short


def last_line(text: str) -> str:
    """The last line that is not empty, or an empty text."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def run(*command: str | Path, log: Path, cwd: Path | None = None) -> None:
    """Runs a command, in the folder `cwd`; its output goes to `log`, whose end is shown if it
    fails."""
    words = [str(word) for word in command]
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(words)}\n".encode())
        output.flush()
        try:
            status = subprocess.call(
                words, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=cwd
            )
        except FileNotFoundError:
            raise BenchError(f"there is no {words[0]}") from None
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        short = f"{' '.join((Path(words[0]).name, *words[1:2]))} failed: {last_line(tail)}"
        raise BenchError(short, f"all of it is in {log}\n{tail}")


def succeeds(*command: str | Path) -> bool:
    """Whether a command ends with status 0."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False

"""Pages of documentation as programs: files are written, commands run, their output compared.

A block ```LANGUAGE FILE is a file, and so is what ```{literalinclude} PATH shows, under its own
name; in a block ```console each line that begins with "$ " is a command for the shell, and the
lines below it are what it prints: "..." stands for anything, and white space at the ends of lines
is left out. A command that ends in " &" runs until the end of the page; it is waited for until it
says "serving", itself or in the file that "2> FILE" names. A block ```python is a module that must
run; ```python (fragment) is a part of one and must be right. Other directives are left alone.
"""

import doctest
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

_BLOCK = re.compile(r"^```(\w+|\{\w+\})(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_CHECKS = {"": "-c 'import block'", "(fragment)": "-m py_compile block.py"}


def run_page(page: Path, folder: Path) -> list[tuple[str, str, str]]:
    """Runs a page in a folder. Returns each command whose output was not what the page says, with
    what it says and what came."""
    return Page(page.read_text(), folder, page.parent).run()


class Page:
    """A page that is run in a folder. `home`: where it stands, for the files that it includes."""

    def __init__(self, text: str, folder: Path, home: Path | None = None) -> None:
        self.text = text
        self.folder = folder
        self.home = home
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",  # a file may be written twice in a second
            "NO_COLOR": "1",
            "COLUMNS": "80",
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
        }
        self.environment.pop("CI", None)

    def run(self) -> list[tuple[str, str, str]]:
        """See run_page."""
        wrong = []
        check = doctest.OutputChecker().check_output
        with ExitStack() as stack:
            for language, name, content in _BLOCK.findall(self.text):
                if language == "{literalinclude}":
                    assert self.home is not None
                    shutil.copy(self.home / name, self.folder)
                elif language.startswith("{"):
                    continue
                elif language == "python" and name in _CHECKS:
                    (self.folder / "block.py").write_text(content)
                    if got := self.command(f"{sys.executable} -W error {_CHECKS[name]}", stack):
                        wrong.append((f"the block in python {name}", "", got))
                elif name:
                    (self.folder / name).write_text(content)
                elif language == "console":
                    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
                        command, _, expected = part.partition("\n")
                        got = re.sub(r" +$", "", self.command(command, stack), flags=re.MULTILINE)
                        if not check(expected, got, doctest.ELLIPSIS):
                            wrong.append((command, expected, got))
        return wrong

    def command(self, command: str, stack: ExitStack) -> str:
        """Runs a command; returns what it printed."""
        behind = command.endswith(" &")
        process = subprocess.Popen(
            ["sh", "-c", f"exec env {command[:-2]}" if behind else command],
            cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=not behind,
        )  # fmt: skip
        if not behind:
            try:
                return process.communicate(timeout=120)[0]
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # itself, or what it has left behind
        stack.callback(process.communicate)
        stack.callback(process.terminate)
        assert process.stdout is not None
        if log := re.search(r" 2> (\S+) &$", command):
            while process.poll() is None:
                path = self.folder / log[1]
                if path.exists() and " serving " in path.read_text():
                    return ""
                time.sleep(0.02)
        for line in process.stdout:
            if " serving " in line:
                return ""
        return "it ended\n"

"""Pages of documentation as programs: files are written, commands run, their output compared.

A block ```LANGUAGE FILE is a file, and so is what ```{literalinclude} PATH shows, under its own
name; in a block ```console each line that begins with "$ " is a command for the shell, and the
lines below it are what it prints: "..." stands for anything, and white space at the ends of lines
is left out. A command that ends in " &" runs until the end of the page; it is waited for until it
says "serving". Other directives are left alone.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

_BLOCK = re.compile(r"^```(\w+|\{\w+\})(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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
            ["sh", "-c", ("exec " + command[:-2]) if behind else command],
            cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if not behind:
            return process.communicate(timeout=120)[0]
        stack.callback(process.communicate)
        stack.callback(process.terminate)
        assert process.stdout is not None
        for line in process.stdout:
            if " serving " in line:
                return ""
        return "it ended\n"

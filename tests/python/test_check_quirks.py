"""`milterkit check` on filters in the style of those that exist: it finds what is wrong in them,
and nothing in habits that work."""

import subprocess
import sys
from pathlib import Path

import pytest

QUIRKS = Path(__file__).parents[1] / "api" / "quirks"

#: Loads a file as the command does and looks at each class in it, in a process of its own: some
#: fork, or are tests that end by themselves.
LOOK = """
import os, sys
from pathlib import Path
from Milter import Base
from Milter.checking import findings, subject_of
from Milter.cli.exits import CommandError
from Milter.cli.load import load
file, found = sys.argv[1], os.fdopen(os.dup(1), "w")
sys.argv[1:] = ["unix:socket"]
os.dup2(2, 1)
try:
    load(file)
except CommandError:
    pass  # several classes, or it ended
module = sys.modules[Path(file).stem]
classes = [each for each in vars(module).values() if isinstance(each, type)
           and issubclass(each, Base) and each.__module__ == module.__name__]
for each in classes or [None]:
    try:
        for it in findings(subject_of(module, file, each)):
            print(it.line, it.check, file=found)
    except ValueError as error:
        print(0, error, file=found)
"""

#: File -> line and check of what is found in it. Whoever adds one says why it is true.
FOUND = {
    "configured": {(43, "index")},  # the first header is number 1
    "contexts": {(24, "eom-only")},  # a change in envrcpt, to see it refused
    "counters": {
        (14, "hidden"),  # self.data and self.unknown are callbacks as soon as the class has them
        (15, "hidden"),
        (44, "macro"),
    },
    "delegates": {(113, "signature")},  # fails for a sender with parameters
    "envelope": {(22, "reply-unused")},  # "no bounces", and the bounce goes on
    "fakes": {(41, "reply-unused")},
    "leftovers": {(30, "state")},  # the second message has the first one's recipients
    "stacked": {(0, "no class in it is derived from Milter.Base, and no callback is set")},
    "strangers": {(46, "verdict")},  # a generator
}


@pytest.mark.parametrize("file", sorted(QUIRKS.glob("*.py")), ids=lambda file: file.stem)
def test_finds_what_is_true(tmp_path, file):
    done = subprocess.run(
        [sys.executable, "-c", LOOK, file],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    found = {(int(number), check) for number, _, check in lines}
    assert found == FOUND.get(file.stem, set()), done.stderr


def test_all_are_there():
    assert {each.stem for each in QUIRKS.glob("*.py")} >= FOUND.keys()

"""What there is to set, to check and to go through stands on its page."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import Milter
import pytest
from Milter._server import LIMITS
from Milter.checking.checks import CHECKS
from Milter.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAME = re.compile(r"`([\w-]+)")


def first_column(page: str, head: str) -> list[str]:
    """The names in the first column of the table with this head."""
    lines = (DOCS / page).read_text().splitlines()
    rows = lines[lines.index(head) + 2 :]
    return [NAME.findall(row)[0] for row in rows[: rows.index("")]]


def limit_rows() -> list[list[str]]:
    text = (DOCS / "limits.md").read_text()
    return [re.split(r" ?\| ?", row)[1:-1] for row in text.splitlines() if row.count("|") == 6][2:]


@pytest.fixture
def run_options(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options of `milterkit run`."""
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    return set(re.findall(r"--([\w-]+)", capsys.readouterr().out))


def test_checks() -> None:
    assert first_column("testing.md", "| check | looks for |") == list(CHECKS)


def test_arguments_of_a_server() -> None:
    described = set(re.findall(r"(?m)^ {4}(\w+(?:, \w+)*):", Milter.Server.__doc__ or ""))
    names = {name for each in described for name in each.split(", ")}
    assert names == set(inspect.signature(Milter.Server).parameters)


@pytest.mark.parametrize("struct", ["mkit_limits", "mkit_server_options"])
def test_settings_in_c(struct: str) -> None:
    header = (ROOT / "include" / "milterkit.h").read_text()
    [body] = re.findall(rf"(?s)\nstruct {struct} {{\n(.*?)\n}};", header)
    body = re.sub(r"(?s)/\*.*?\*/", "", body)
    fields = set(re.findall(r"(?m)^ {4}[\w ]+ (\w+);", body))
    on_page = {name for row in limit_rows() for name in re.findall(r"\w+", row[3])}
    assert fields - on_page <= {"runners", "linger", "poller", "adopts"}  # no limits


def test_limits_can_be_set_as_their_page_says(run_options: set[str]) -> None:
    columns = [row[4] for row in limit_rows() if "`" in row[4]]
    limits = [name for text in columns for name in re.findall(r'limits\["(\w+)"\]', text)]
    arguments = [NAME.findall(text)[0] for text in columns if "limits[" not in text]
    assert limits == list(LIMITS)
    assert set(arguments) < set(inspect.signature(Milter.Server).parameters)
    assert {"limit", *(name.replace("_", "-") for name in arguments)} <= run_options


def test_steps() -> None:
    table = (DOCS / "states.md").read_text()
    engine = (ROOT / "src" / "wire" / "names.c").read_text()
    steps = set(re.findall(r'\[MKIT_\w+\] = "([a-z]+)",', engine))
    assert steps - set(re.findall(r"\| `\w` \| (\w+) \|", table)) == {"abort", "close"}

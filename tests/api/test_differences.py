"""The page for users and the table that the tests use name the same differences."""

from __future__ import annotations

import re
from pathlib import Path

from .differences import DIFFERENCES

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"


def test_the_page_names_them_all() -> None:
    # What stands in front is a table of contents; what follows is the matter of other tests.
    _, page = PAGE.read_text().split("\n## What a filter may say\n")
    page, _ = page.split("\n## The companion modules\n")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    named = [
        name for row in rows for name in re.findall(r"`` ?(.*?) ?``|`(.*?)`", row.split(" | ")[0])
    ]
    assert sorted(first or second for first, second in named) == sorted(DIFFERENCES)


def test_each_is_one() -> None:
    assert [name for name, it in DIFFERENCES.items() if it.theirs == it.ours] == []
    assert all(it.why for it in DIFFERENCES.values())

"""docs/tutorial.md: every command prints what the page says."""

from pathlib import Path

from page import run_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tutorial(tmp_path: Path) -> None:
    assert run_page(DOCS / "tutorial.md", tmp_path) == []

"""docs/examples: commands print what the pages say, and no example is without a page and a test."""

import shutil
from pathlib import Path

import pytest
from page import run_page

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "examples"
NO_FILTERS = {"demo"}  # shows another example at work
EXAMPLES = {path.stem for path in (ROOT / "examples").glob("*.[cp]*")} - NO_FILTERS
NAMES = sorted({path.stem for path in PAGES.glob("*.md")} - {"index"})
#: Programs of the system that pages run.
NEEDED = {"filter": "pkg-config", "dkim_sign": "openssl"}
#: Where the page of the filter in C finds the engine, as if it were installed.
BUILT = ROOT / "build" / "libmilter"


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_right(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (program := NEEDED.get(name)) and not shutil.which(program):
        pytest.skip(f"{program} is missing")
    monkeypatch.setenv("PKG_CONFIG_PATH", str(BUILT / "meson-uninstalled"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(BUILT))
    wrong = run_page(PAGES / f"{name}.md", tmp_path)
    told = "\n".join(f"$ {command}\n{got}(the page:)\n{says}" for command, says, got in wrong)
    assert not wrong, told


def test_every_example_has_a_page() -> None:
    assert set(NAMES) == EXAMPLES


def test_every_page_shows_its_file() -> None:
    for name in NAMES:
        file = next((ROOT / "examples").glob(f"{name}.*"))
        assert (
            f"```{{literalinclude}} ../../examples/{file.name}\n"
            in (PAGES / f"{name}.md").read_text()
        )


def test_every_example_has_a_test() -> None:
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    # The one in C has its test in tests/libmilter, beside the others that need a compiler.
    assert EXAMPLES - tests == {"filter"}


def test_the_index_has_every_page() -> None:
    index = (PAGES / "index.md").read_text()
    assert [name for name in NAMES if f"]({name}.md)" not in index] == []

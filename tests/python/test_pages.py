"""The documentation's pages: every command prints what the page says, every block in Python runs;
and the examples in docstrings. The pages of examples are run beside their tests, in tests/examples.
"""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import Milter
import mime
import pytest
from Milter.testing.samples import SAMPLES
from page import Page, run_page

ROOT = Path(__file__).parents[2]
#: What is run by another test, for which more is needed, up to the next heading.
ELSEWHERE = {"docs/testing.md": "## Try a filter that is not in Python"}  # tests/programs

PAGES = [
    path
    for path in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")))
    if path.parent.name != "examples"
    and re.search(r"^```(python|console)", path.read_text(), re.MULTILINE)
]
MODULES = [
    module.name
    for package in (Milter, mime)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    if heading := ELSEWHERE.get(str(page.relative_to(ROOT))):
        assert text.count(f"\n{heading}\n") == 1
        before, after = text.split(f"\n{heading}\n")
        text = before + after[after.index("\n## ") :]
    wrong = Page(text, tmp_path, page.parent).run()
    told = "\n".join(f"$ {command}\n{got}(the page:)\n{says}" for command, says, got in wrong)
    assert not wrong, told


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_each_file_in_python_is_used(page: Path) -> None:
    """A file that no command of the page names, and no other file imports, would not be run."""
    text = page.read_text()
    for found in re.finditer(r"^```python (\w+)\.py$", text, re.MULTILINE):
        used = rf"^\$ .*\b{found[1]}\b|^from {found[1]} import|^\$ python -m pytest"
        assert re.search(used, text[found.end() :], re.MULTILINE), found[0]


def test_a_page_that_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n1 / 0\n```\n```python (fragment)\nif:\n```\n```python\nx = 1\n```\n"
    )
    (_, _, first), (_, _, second) = run_page(page, tmp_path)
    assert "ZeroDivisionError" in first
    assert "SyntaxError" in second


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["Milter.testing", "mime"])
def test_the_example_of_a_module(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docstring = importlib.import_module(name).__doc__ or ""
    (tmp_path / "message.eml").write_bytes(SAMPLES["multipart"])
    monkeypatch.chdir(tmp_path)
    example = re.findall(r"(?:^(?:    .*)?\n)+", docstring, re.MULTILINE)
    code = "".join(line.removeprefix("    ") for each in example for line in each.splitlines(True))
    assert "import" in code
    names: dict[str, object] = {}
    exec(code, names)
    for each, test in names.items():
        if each.startswith("test_"):
            test()  # type: ignore[operator]

"""The names of the older package's modules: each is in ours, or on the page of differences."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

from api.conftest import ORACLE_PYTHON, need

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
MODULES = ["milter", "Milter", "mime"] + [
    f"Milter.{name}"
    for name in (
        *("cache", "config", "dns", "dsn", "dynip", "greylist", "greysql", "plock", "policy"),
        *("pyip6", "sgmllib", "test", "testctx", "unsign", "utils"),
    )
]
_ASK = """
import importlib, json, sys, types
found = {}
for name in json.loads(sys.argv[1]):
    try:
        module = importlib.import_module(name)
    except ImportError:  # what it needs is not there
        continue
    found[name] = {}
    for each, value in vars(module).items():
        if not each.startswith("__") and type(value).__name__ not in ("module", "_Feature"):
            methods = dir(value) if isinstance(value, type) else []
            own = [it for it in methods if not it.startswith("__")]
            found[name][each] = [it for it in own if not hasattr(Exception, it)]
print(json.dumps(found))
"""


def listed() -> dict[str, set[str]]:
    """By module, the names that the page says are not in ours."""
    _, section = PAGE.read_text().split("\n## Names that are not there\n")
    rows = re.findall(r"^\| `(\w[\w.]*)` \| (.*?) \|", section.partition("\n## ")[0], re.MULTILINE)
    names: dict[str, set[str]] = {}
    for module, cell in rows:
        names.setdefault(module, set()).update(re.findall("`(.*?)`", cell))
    return names


def test_the_page_lists_what_is_missing() -> None:
    need("oracle")
    command = [ORACLE_PYTHON, "-W", "ignore", "-c", _ASK, json.dumps(MODULES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert len(theirs) > 12
    for module, names in theirs.items():
        ours = importlib.import_module(module)
        missing = {name for name in names if not hasattr(ours, name)}
        missing |= {  # some methods of a class
            f"{name}.*"
            for name, methods in names.items()
            if hasattr(ours, name) and not all(hasattr(getattr(ours, name), it) for it in methods)
        }
        assert (module, missing) == (module, listed().get(module, set()))


def test_every_module_is_there() -> None:
    for module in MODULES:
        assert importlib.import_module(module) is sys.modules[module]
    assert set(listed()) <= set(MODULES)

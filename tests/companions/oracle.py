"""Asks the older package what it makes of expressions, in a process of its own, and asks ours."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Iterable
from typing import Any

from api.conftest import ORACLE_PYTHON, need

_ASK = """
import importlib, json, sys
sys.dont_write_bytecode = True
name, expressions = json.load(sys.stdin)
names = dict(vars(importlib.import_module("Milter." + name)))
def answer(text):
    try:
        return repr(eval(text, names))
    except Exception as error:
        return type(error).__name__
json.dump([answer(text) for text in expressions], sys.stdout)
"""


def theirs(module: str, expressions: Iterable[str]) -> list[str]:
    """The repr of each expression's value, or the name of the exception's type."""
    need("oracle")
    done = subprocess.run(
        [ORACLE_PYTHON, "-c", _ASK],
        input=json.dumps([module, list(expressions)]),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    answers: list[str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def ours(module: str, expressions: Iterable[str]) -> list[str]:
    """The same from our package."""
    names: dict[str, Any] = dict(vars(importlib.import_module(f"Milter.{module}")))

    def answer(text: str) -> str:
        try:
            return repr(eval(text, names))
        except Exception as error:
            return type(error).__name__

    return [answer(text) for text in expressions]


def agree(module: str, expressions: Iterable[str], differences: dict[str, str]) -> None:
    """Asserts that both say the same, but for `differences`: expression -> what ours says."""
    asked = list(dict.fromkeys([*expressions, *differences]))
    for text, their, our in zip(asked, theirs(module, asked), ours(module, asked), strict=True):
        if text in differences:
            assert (text, our) == (text, differences[text])
            assert their != our, f"{text}: no difference any more"
        else:
            assert (text, our) == (text, their)

"""Asks the older package what it makes of expressions, in a process of its own, and asks ours."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
from collections.abc import Iterable
from typing import Any

from api.conftest import ORACLE_PYTHON, need

_ASK = """
import importlib, json, re, sys
{raised}
sys.dont_write_bytecode = True
name, expressions = json.load(sys.stdin)
names = dict(vars(importlib.import_module("Milter." + name)))
def answer(text):
    try:
        return repr(eval(text, names))
    except Exception as error:
        return raised(error)
json.dump([answer(text) for text in expressions], sys.stdout)
"""

#: Texts of exceptions that are ours: they say what was wrong and with what.
OWN_TEXTS = re.compile(
    r"Invalid IP6 address: .*|not an IP address: .*|(?:not a|negative) number of bits: .*"
    r"|\[a\] \w+: not an? (?:number|address): .*"
    r"|'[^' ]+@[^' ]+'",  # a KeyError of the cache names the address, not its domain
    re.DOTALL,
)


def raised(error):  # type: ignore[no-untyped-def]
    """What an exception is: what catches it, how many arguments and which number it has, its text.
    The older package's interpreter runs this, too."""
    kinds = " ".join(each.__name__ for each in type(error).__mro__[:-2])
    text = re.sub(" at 0x[0-9a-f]+", "", str(error))
    return f"raised {kinds} ({len(error.args)}, {getattr(error, 'errno', None)}): {text}"


def theirs(module: str, expressions: Iterable[str]) -> list[str]:
    """The repr of each expression's value, or what `raised` tells of its exception."""
    need("oracle")
    done = subprocess.run(
        [ORACLE_PYTHON, "-c", _ASK.replace("{raised}", inspect.getsource(raised))],
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
            return raised(error)

    return [answer(text) for text in expressions]


def agree(module: str, expressions: Iterable[str], differences: dict[str, str]) -> None:
    """Asserts that both say the same, but for `differences`: expression -> what ours says, of an
    exception the type. Exceptions are the same in all that `raised` tells, or have OWN_TEXTS."""
    asked = list(dict.fromkeys([*expressions, *differences]))
    for text, their, our in zip(asked, theirs(module, asked), ours(module, asked), strict=True):
        kind, _, told = our.partition("): ")
        is_error = our.startswith("raised ")
        if text in differences:
            assert (text, kind.split(" ")[1] if is_error else our) == (text, differences[text])
            assert their != our, f"{text}: no difference any more"
        elif is_error and OWN_TEXTS.fullmatch(told):
            assert (text, kind) == (text, their.partition("): ")[0])
        else:
            assert (text, our) == (text, their)

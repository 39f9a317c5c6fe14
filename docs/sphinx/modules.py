"""The public Python modules, found where they are: a new one is in the reference by itself."""

import importlib
import inspect
import pkgutil
from typing import Any

import Milter
import milter
from constants import constants
from tables import macros

#: As many characters of a value are shown.
_READABLE = 80
#: Not for filters and their tests.
_INTERNAL = {"checking", "cli"}
#: With pages of their own.
_PAGES = ["Milter.macros", "Milter.testing"]
#: The modules in Milter.testing that are for tests as well.
TESTING = [
    f"Milter.testing.{name}" for name in ("samples", "spec", "recording", "replaying", "transcript")
]

#: What filters import beside Milter.
COMPANIONS = [
    name
    for name in sorted(f"Milter.{each.name}" for each in pkgutil.iter_modules(Milter.__path__))
    if not name.startswith("Milter._")
    and name.removeprefix("Milter.") not in _INTERNAL
    and name not in _PAGES
]
MODULES = ["milter", "Milter", "mime", *_PAGES, *TESTING, *COMPANIONS]


def public_names(module: str) -> list[tuple[str, Any]]:
    """What a module offers, with the values; not what Milter takes over from milter."""
    there = importlib.import_module(module)
    return [
        (name, getattr(there, name))
        for name in getattr(there, "__all__", dir(there))
        if not name.startswith("_") and not (there is Milter and hasattr(milter, name))
    ]


def _shown(modules: list[str]) -> str:
    return "\n".join(_module(name) for name in modules)


def _module(module: str) -> str:
    """The part of a page for a module. Values that are too long to read (messages, patterns) are
    left out; of what is another module's there is only the name."""
    values = dict(public_names(module))
    others = [name for name, value in values.items() if inspect.isbuiltin(value)]
    long = [
        name
        for name, value in values.items()
        if not callable(value) and len(repr(value)) > _READABLE
    ]
    lines = [f"## `{module}`\n\n```{{eval-rst}}\n.. automodule:: {module}"]
    if others or long:
        lines.append(f"   :exclude-members: {', '.join(others + long)}")
    lines += [f"\n.. autodata:: {module}.{name}\n   :no-value:" for name in long]
    lines += [
        f"\n.. py:function:: {name}\n   :module: {module}\n\n"
        f"   That of ``{values[name].__module__}``."
        for name in others
    ]
    return "\n".join([*lines, "```\n"])


SUBSTITUTIONS = {
    "constants": constants(),
    "macros": macros(),
    "companions": _shown(COMPANIONS),
    "testing": _shown(TESTING),
}

"""The public Python modules, found where they are: a new one is in the reference by itself."""

import importlib
import pkgutil
from typing import Any

import Milter
import milter
from constants import constants

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
    return "\n".join(
        f"## `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in modules
    )


SUBSTITUTIONS = {
    "constants": constants(),
    "companions": _shown(COMPANIONS),
    "testing": _shown(TESTING),
}

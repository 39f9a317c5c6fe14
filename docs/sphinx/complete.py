"""A warning for each public name that the reference lacks or that nothing is said about: names of
the Python modules, members of their classes, and what the C headers declare."""

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from modules import MODULES, public_names
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

_HEADERS = Path(__file__).parents[2] / "include"
_DECLARED = re.compile(
    r"^(?:MKIT|LIBMILTER)_API [^;(]*?\b(\w+)\(|^(?:struct|enum) (\w+) \{"
    r"|^typedef [^;]*?\b(mkit_\w+)\(|^    (MKIT_\w+)",
    re.M,
)


def _python() -> Iterator[tuple[str, bool]]:
    """Names, and whether something is said about each."""
    for module in MODULES:
        for name, value in public_names(module):
            yield f"{module}.{name}", True  # autodoc leaves out what has no docstring or comment
            if inspect.isclass(value) and value.__name__ == name:
                for member in _members(value):
                    yield f"{module}.{name}.{member}", _said(value, member)


def _members(klass: type) -> set[str]:
    """What a class defines itself."""
    fields = (
        inspect.get_annotations(klass).keys() & getattr(klass, "__dataclass_fields__", {}).keys()
    )
    return {name for name in (*vars(klass), *fields) if not name.startswith("_")}


def _said(klass: type, member: str) -> bool:
    """Whether a member is explained: in its docstring, in a comment, in the docstring of its class;
    those of an Enum are by their values."""
    value = vars(klass).get(member)
    if inspect.isroutine(value) or isinstance(value, property):
        return bool(value.__doc__)
    comments = ModuleAnalyzer.for_module(klass.__module__).find_attr_docs()
    return (
        issubclass(klass, Enum)
        or (klass.__qualname__, member) in comments
        or member in re.findall(r"\w+", klass.__doc__ or "")
    )


def _keep(_app: Sphinx, what: str, name: str, _value: Any, skip: bool, _options: Any) -> bool:
    """For autodoc: whether to leave a member out. Those of classes stay, see above."""
    return skip and (what == "module" or name.startswith("_"))


def _c() -> Iterator[tuple[str, bool]]:
    """hawkmoth leaves out what has no comment."""
    for header in _HEADERS.rglob("*.h"):
        for names in _DECLARED.findall(header.read_text()):
            yield next(filter(None, names)), True


def _check(_app: Sphinx, env: BuildEnvironment) -> None:
    logger = logging.getLogger(__name__)
    for domain, wanted in (("py", _python()), ("c", _c())):
        there = {each[0] for each in env.get_domain(domain).get_objects()}
        for name, said in wanted:
            if name not in there:
                logger.warning("%s is not in the reference", name)
            elif not said:
                logger.warning("nothing is said about %s", name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", _keep)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""From FILE.py[:NAME] to the filter class or factory in it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from Milter import Base
from Milter.cli.exits import CommandError

__all__ = ["load_filter"]


def load_filter(target: str) -> Callable[[], Any]:
    """Runs the file (as a module, not as __main__) and returns what makes its filter objects.

    target: FILE.py, which must hold exactly one class derived from Milter.Base that is not the
    base of another one there; or FILE.py:NAME for any class, function or other callable.
    Raises CommandError that says what is wrong.
    """
    file, colon, name = target.rpartition(":")
    if not colon or not name.isidentifier():
        file, name = target, ""
    module = _run_file(Path(file))
    if not name:
        return _only_filter(module, file)
    factory = getattr(module, name, None)
    if factory is None:
        raise CommandError(f"{file}: there is no {name} in it")
    if not callable(factory):
        raise CommandError(f"{file}: {name} is no class and cannot be called")
    made: Callable[[], Any] = factory
    return made


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise CommandError(f"{path}: no such file")
    # A filter in a file called email.py must not stand in for the module email.
    name = path.stem if path.stem not in sys.modules else f"{path.stem} (filter)"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{path}: not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE.py` does
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise CommandError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise CommandError(f"{where}: {type(error).__name__}: {error}") from error
    return module


def _only_filter(module: ModuleType, file: str) -> Callable[[], Any]:
    classes = dict.fromkeys(  # each once, though it may have several names
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Base)
        if value.__module__ == module.__name__
    )
    bases = {base for each in classes for base in each.__mro__[1:]}
    filters = [each for each in classes if each not in bases]
    if len(filters) == 1:
        return filters[0]
    if not filters:
        raise CommandError(f"{file}: no class in it is derived from Milter.Base")
    names = ", ".join(each.__name__ for each in filters)
    raise CommandError(f"{file}: several filters in it ({names}): say which, as {file}:NAME")

"""From FILE.py[:NAME] to the module, and to the filter class or factory in it."""

from __future__ import annotations

import _thread
import importlib.util
import inspect
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import milter

import Milter
from Milter import Base, Server
from Milter.cli.exits import CommandError
from Milter.cli.functions import class_of

__all__ = ["Loaded", "filters_in", "load_filter", "load_only", "split_target", "target_of"]


def load_filter(target: str) -> Callable[[], Any]:
    """Runs the file (as a module, not as __main__) and returns what makes its filter objects.

    target: FILE.py, which must hold exactly one class derived from Milter.Base that is not the
    base of another one there, or else give its functions to `milter`; or FILE.py:NAME for any
    class, function or other callable. It is called without arguments for each connection: one that
    needs some is refused. Raises CommandError that says what is wrong.
    """
    file, name = split_target(target)
    before = milter._callbacks()
    module = _run_file(Path(file))
    now = milter._callbacks()
    functions = [new if new is not old else None for new, old in zip(now, before, strict=True)]
    if not name and any(functions) and not filters_in(module):
        return class_of(functions, milter._settings()[0])
    factory = _named(module, file, name)
    try:
        inspect.signature(factory).bind()
    except ValueError:  # it is written in C, and says nothing of its arguments
        pass
    except TypeError as error:
        called = name or getattr(factory, "__name__", "its class")
        raise CommandError(
            f"{file}: {called} is called without arguments for each connection ({error}): "
            f"give defaults, or name a factory that gives them, as {file}:NAME"
        ) from error
    return factory


def split_target(target: str) -> tuple[str, str]:
    """The file and the name in FILE.py[:NAME]; the name is "" where there is none."""
    file, colon, name = target.rpartition(":")
    return (file, name) if colon and name.isidentifier() else (target, "")


def target_of(text: str) -> str | Callable[[], Any]:
    """What SPEC|FILE.py[:NAME] means: the specification of a socket, or what makes the objects of
    the filter in that file. Raises CommandError."""
    file, _ = split_target(text)
    if not file.endswith(".py") or text.startswith(("unix:", "local:")):
        return text
    return load_filter(text)


class Loaded(NamedTuple):
    """A file that was loaded. klass: of the filter's objects, None where no name is given and no
    class in it is derived from Milter.Base. by_factory: whether NAME is not that class, but a
    factory."""

    module: ModuleType
    klass: type | None
    by_factory: bool = False


def load_only(target: str) -> Loaded:
    """Like load_filter, for those who want to look at it. A factory is called once. What would
    serve is not done: a file that is a whole program is run up to there. Raises CommandError."""
    file, name = split_target(target)
    with _no_serving():
        module = _run_file(Path(file))
    factory = _named(module, file, name) if name or filters_in(module) else None
    if factory is None or isinstance(factory, type):
        return Loaded(module, factory)
    try:
        return Loaded(module, type(factory()), by_factory=True)
    except Exception as error:
        raise CommandError(_place(Path(file), error, f"{name}() raised ")) from error


class _Serves(BaseException):
    """Ends a program where it would serve. in_thread: whether that was in a thread of its own,
    while the main one, which is then interrupted, waits for it to end."""

    in_thread = False


@contextmanager
def _no_serving() -> Iterator[None]:
    """Everything that opens a socket or serves ends the program instead."""
    # By the names under which programs find them.
    doors = [
        *((each, name) for each in (milter, Milter) for name in ("opensocket", "main")),
        (Milter, "runmilter"),
        *((Server, name) for name in ("open", "serve_forever", "start")),
    ]
    kept = [(owner, name, getattr(owner, name)) for owner, name in doors]

    def stop_here(*_: object, **__: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            _Serves.in_thread = True
            _thread.interrupt_main()
            raise SystemExit
        raise _Serves

    _Serves.in_thread = False
    for owner, name in doors:
        setattr(owner, name, stop_here)
    try:
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


def _named(module: ModuleType, file: str, name: str) -> Callable[[], Any]:
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
        where = path if Path(error.filename or "").resolve() == path.resolve() else error.filename
        raise CommandError(f"{where}, line {error.lineno}: {error.msg}") from error
    except _Serves:
        pass
    except KeyboardInterrupt:
        if not _Serves.in_thread:
            raise
    except SystemExit as error:
        raise CommandError(f"{path}: it ended while it was loaded, by exit {error}") from error
    except Exception as error:
        raise CommandError(_place(path, error)) from error
    return module


def _place(path: Path, error: Exception, what: str = "") -> str:
    """One line that says which line of the file raised, and what."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    return f"{where}: {what}{type(error).__name__}: {error}"


def filters_in(module: ModuleType) -> list[type[Base]]:
    """The classes derived from Milter.Base that a module defines, but for bases of others there."""
    classes = dict.fromkeys(  # each once, though it may have several names
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Base)
        if value.__module__ == module.__name__
    )
    bases = {base for each in classes for base in each.__mro__[1:]}
    return [each for each in classes if each not in bases]


def _only_filter(module: ModuleType, file: str) -> Callable[[], Any]:
    filters = filters_in(module)
    if len(filters) == 1:
        return filters[0]
    if not filters:
        raise CommandError(
            f"{file}: no class in it is derived from Milter.Base, and no callback is set"
        )
    names = ", ".join(each.__name__ for each in filters)
    raise CommandError(f"{file}: several filters in it ({names}): say which, as {file}:NAME")

"""From FILE.py[:NAME] or package.module:NAME to the module, and to the filter in it."""

from __future__ import annotations

import _thread
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import milter

import Milter
from Milter import Base, Server
from Milter.cli.exits import CommandError
from Milter.cli.functions import class_of
from Milter.cli.places import author_place, shown

__all__ = ["Loaded", "filters_in", "load", "load_filter", "split_target", "target_of"]

Factory = Callable[[], Any]
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_SPEC_KINDS = ("unix", "local", "inet", "inet6", "fd")


@dataclass(frozen=True)
class Loaded:
    """A module that was loaded, up to where it would serve.

    file: its own, as it was given where that was a file. factory: makes its filter objects; None
    where no class in it is a filter's. name: of that, as it is called there. functions: those that
    the file gave to `milter`, as milter._callbacks() returns them. socket: where it would have
    served, if it came so far.
    """

    file: str
    module: ModuleType
    factory: Factory | None
    name: str
    functions: tuple[Callable[..., Any] | None, ...]
    socket: str | None = None

    @property
    def by_factory(self) -> bool:
        """Whether something else than a class makes the objects."""
        return self.factory is not None and not isinstance(self.factory, type)

    def klass(self) -> type | None:
        """The class of the objects; None where there is no factory. One that is not a class is
        called, once. Raises CommandError if it raises."""
        if self.factory is None or isinstance(self.factory, type):
            return self.factory
        try:
            return type(self.factory())
        except Exception as error:
            raise CommandError(_told(error, self.file, f"{self.name}() raised ")) from error

    def serving(self) -> Factory:
        """What is to be served: it is called without arguments for each connection. Raises
        CommandError if there is nothing, or if it needs arguments."""
        if self.factory:
            self._check_arguments(self.factory)
            return self.factory
        if any(self.functions):
            flags: int = milter._settings()[0]
            return class_of(self.functions, flags, Path(self.file).stem)
        raise CommandError(
            f"{self.file}: no class in it is derived from Milter.Base, and no callback is set"
        )

    def _check_arguments(self, factory: Factory) -> None:
        try:
            inspect.signature(factory).bind()
        except ValueError:  # it is written in C, and says nothing of its arguments
            pass
        except TypeError as error:
            raise CommandError(
                f"{self.file}: {self.name} is called without arguments for each connection "
                f"({error}): give defaults, or name a factory that gives them, as {self.file}:NAME"
            ) from error


def load(target: str) -> Loaded:
    """Loads a target: FILE[:NAME], where the file is a Python program, whatever its name ends in,
    or a folder with a __main__.py; or MODULE:NAME, where the module can be imported from here.

    NAME is any class, function or other callable. Without it the file must hold exactly one class
    derived from Milter.Base that is not the base of another one there, or give its functions to
    `milter`, or choose one by Milter.factory. It is loaded as a module; if nothing is found in it,
    it is run as a program. What would serve ends it there. Raises CommandError that says what is
    wrong, and where.
    """
    file, name = split_target(target)
    with _chosen() as before:
        if name and not Path(file).exists() and _MODULE.fullmatch(file):
            return _loaded(_run(file, lambda: _spec_of_module(file)), name, before)
        path = _program_in(Path(file))
        found = _loaded(_run(str(path), lambda: _spec_of_file(path)), name, before)
        if name or found.factory or any(found.functions):
            return found
        return _loaded(_run(str(path), lambda: _spec("__main__", path)), name, before)


def load_filter(target: str) -> Factory:
    """What makes the filter objects of a target; see load. Raises CommandError."""
    return load(target).serving()


def split_target(target: str) -> tuple[str, str]:
    """The file or module and the name in FILE[:NAME]; the name is "" where there is none."""
    file, colon, name = target.rpartition(":")
    return (file, name) if colon and name.isidentifier() else (target, "")


def target_of(text: str) -> str | Factory:
    """What SPEC|FILE.py[:NAME]|MODULE:NAME means: the specification of a socket, or what makes the
    objects of the filter there. Raises CommandError."""
    file, name = split_target(text)
    kind = text.partition(":")[0].lower()
    is_module = name and "/" not in file and not Path(file).exists()
    if kind in _SPEC_KINDS or not (file.endswith(".py") or (is_module and file)):
        return text
    return load_filter(text)


# -------------------------------------------------------------------------------- finding modules


def _program_in(path: Path) -> Path:
    """The file itself, or what `python FOLDER` would run."""
    if path.is_dir():
        if not (path / "__main__.py").is_file():
            raise CommandError(
                f"{path}: it is a folder without __main__.py: name the file that the filter is in"
            )
        return path / "__main__.py"
    if not path.exists():
        is_module = path.suffix != ".py" and _MODULE.fullmatch(str(path))
        hint = f" (a module is written {path}:NAME)" if is_module else ""
        raise CommandError(f"{path}: no such file{hint}")
    return path


class _Uncached(importlib.machinery.SourceFileLoader):
    """Leaves no __pycache__ beside programs, which are in /usr/bin."""

    def path_stats(self, path: Any) -> Any:
        """What keeps Python from looking for compiled code, and from writing it."""
        raise OSError


def _spec(name: str, path: Path) -> importlib.machinery.ModuleSpec:
    path = path.absolute()
    kind = importlib.machinery.SourceFileLoader if path.suffix == ".py" else _Uncached
    loader = kind(name, str(path))
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE.py` does
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec
    return spec


def _spec_of_file(path: Path) -> importlib.machinery.ModuleSpec:
    """By the name under which others can import it, unless that is another module: a package of the
    same name beside it, or email, where the file is called email.py."""
    spec = _spec(path.stem, path)
    taken = path.stem in sys.modules or path.stem in sys.stdlib_module_names
    if not taken and path.stem.isidentifier():
        other = importlib.util.find_spec(path.stem)
        origin = other.origin if other else None
        taken = other is not None and (not origin or Path(origin).resolve() != path.resolve())
    if taken:
        sys.path.pop(0)
        spec = _spec(f"{path.stem} (filter)", path)
    return spec


def _spec_of_module(name: str) -> importlib.machinery.ModuleSpec:
    sys.path.insert(0, os.getcwd())
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise CommandError(f"{name}: there is no such file, and no module of that name")
    return spec


# --------------------------------------------------------------------------------------- running


class _Serves(BaseException):
    """Ends a program where it would serve. factory, socket: what, and where, if that is known."""

    def __init__(self, factory: Factory | None = None, socket: str | None = None) -> None:
        super().__init__()
        self.factory = factory
        self.socket = socket


def _run(
    file: str, find: Callable[[], importlib.machinery.ModuleSpec]
) -> tuple[str, ModuleType, _Serves]:
    """Runs a module up to where it would serve."""
    served = _Serves()
    with _telling(file), _no_serving() as in_threads:
        spec = find()
        module = importlib.util.module_from_spec(spec)
        before = sys.modules.get(spec.name)
        sys.modules[spec.name] = module
        try:
            assert spec.loader
            spec.loader.exec_module(module)
        except _Serves as reached:
            served = reached
        except KeyboardInterrupt:
            if not in_threads:
                raise
            served = in_threads[0]
        finally:
            if spec.name == "__main__" and before:
                sys.modules["__main__"] = before
    return file, module, served


@contextmanager
def _telling(file: str) -> Iterator[None]:
    """Says in a line what a file raises while it is loaded."""
    try:
        yield
    except CommandError:
        raise
    except SystemExit as error:
        raise CommandError(f"{file}: it ended while it was loaded, by exit {error}") from error
    except Exception as error:
        raise CommandError(_told(error, file)) from error


def _told(error: Exception, file: str, what: str = "") -> str:
    """An exception in a line, with its place. file: as the user has written it. what: put in front
    of the exception."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return f"{_as_given(error.filename, file)}, line {error.lineno}: {error.msg}"
    place = author_place(error)
    where = f"{_as_given(place[0], file)}, line {place[1]}" if place else file
    hint = (
        " (write it as package.module:NAME, from the folder that the package is in)"
        if isinstance(error, ImportError) and "relative import" in str(error)
        else ""
    )
    return f"{where}: {what}{type(error).__name__}: {error}{hint}"


def _as_given(name: str, file: str) -> str:
    return file if Path(name).resolve() == Path(file).resolve() else shown(name)


@contextmanager
def _no_serving() -> Iterator[list[_Serves]]:
    """Everything that opens a socket or serves ends the program instead. In another thread than the
    main one, which then waits for it to end, that ends the thread and interrupts the main one: the
    list says what was to be served."""
    in_threads: list[_Serves] = []

    def end(reached: _Serves) -> NoReturn:
        if threading.current_thread() is not threading.main_thread():
            in_threads.append(reached)
            _thread.interrupt_main()
            raise SystemExit
        raise reached

    def module_serves(*_: object, **__: object) -> None:
        end(_Serves())

    def runmilter(_name: str = "", socketname: str | None = None, *_: object, **__: object) -> None:
        end(_Serves(Milter.factory, socketname))

    def server_serves(server: Server, *_: object, **__: object) -> None:
        end(_Serves(server._factory, server._socket))

    # By the names under which programs find them.
    doors: list[tuple[Any, str, Any]] = [
        *((each, name, module_serves) for each in (milter, Milter)
          for name in ("opensocket", "main")),
        (Milter, "runmilter", runmilter),
        *((Server, name, server_serves) for name in ("open", "serve_forever", "start")),
    ]  # fmt: skip
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in doors]
    for owner, name, door in doors:
        setattr(owner, name, door)
    try:
        yield in_threads
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


# ------------------------------------------------------------------------------- what is in them


@dataclass(frozen=True)
class _Before:
    """What the process had before a file was loaded: the functions, and the factory."""

    functions: tuple[Callable[..., Any] | None, ...]
    factory: Factory


@contextmanager
def _chosen() -> Iterator[_Before]:
    """What is there now; the factory is put back."""
    before = _Before(tuple(milter._callbacks()), Milter.factory)
    try:
        yield before
    finally:
        Milter.factory = before.factory


def _loaded(ran: tuple[str, ModuleType, _Serves], name: str, before: _Before) -> Loaded:
    file, module, served = ran
    now = milter._callbacks()
    functions = tuple(
        new if new is not old else None for new, old in zip(now, before.functions, strict=True)
    )
    factory = _factory_in(module, file, name, served, before)
    called = name or getattr(factory, "__name__", "its factory")
    return Loaded(file, module, factory, called, functions, served.socket)


def _factory_in(
    module: ModuleType, file: str, name: str, served: _Serves, before: _Before
) -> Factory | None:
    if name:
        return _named(module, file, name)
    for chosen in (served.factory, Milter.factory):
        if chosen is not None and chosen is not before.factory:
            return chosen
    filters = filters_in(module)
    if len(filters) > 1:
        names = ", ".join(each.__name__ for each in filters)
        raise CommandError(f"{file}: several filters in it ({names}): say which, as {file}:NAME")
    return filters[0] if filters else None


def _named(module: ModuleType, file: str, name: str) -> Factory:
    factory = getattr(module, name, None)
    if factory is None:
        known = [each.__name__ for each in filters_in(module)]
        there = f"; there is: {', '.join(known)}" if known else ""
        raise CommandError(f"{file}: there is no {name} in it{there}")
    if not callable(factory):
        raise CommandError(f"{file}: {name} is no class and cannot be called")
    made: Factory = factory
    return made


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

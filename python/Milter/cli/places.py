"""Where an error is, as its author looks for it: the line in a file of his, not in a library."""

from __future__ import annotations

import inspect
import os
import sysconfig
import traceback
from pathlib import Path

import Milter

__all__ = ["author_place", "callback_place", "shown"]

_OURS = (str(Path(Milter.__file__).parent), str(Path(Milter.__file__).parent.parent / "mime"))
_PYTHON = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))


def author_place(error: BaseException) -> tuple[str, int] | None:
    """The file and the line that an exception is to be looked for at: the innermost frame that is
    not in a library; without one, not in Python's own or this package; None if it has no frames at
    all, or only this package's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not _is_in(frame.filename, _OURS)
    ]
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    packages = [frame for frame in frames if not _is_python(frame.filename)]
    found = own or packages or frames
    return (found[-1].filename, found[-1].lineno or 0) if found else None


def callback_place(obj: object, step: str) -> tuple[str, int] | None:
    """The file and the line at which a filter's callback begins; None if it has none. step: as
    tests call it."""
    name = {"helo": "hello", "mail": "envfrom", "rcpt": "envrcpt"}.get(step, step)
    for each in (f"{name}_bytes", name):
        function = inspect.unwrap(getattr(type(obj), each, None) or (lambda: None))
        code = getattr(function, "__code__", None)
        if code and not _is_in(code.co_filename, _OURS):
            return code.co_filename, code.co_firstlineno
    return None


def shown(file: str | Path) -> str:
    """A file's name for people: from the current folder, if it is in it."""
    try:
        relative = os.path.relpath(file)
    except (OSError, ValueError):
        return str(file)
    return str(file) if relative.startswith("..") else relative


def _is_package(file: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _is_python(file: str) -> bool:
    return _is_in(file, _PYTHON) and not _is_package(file)


def _is_installed(file: str) -> bool:
    return _is_package(file) or _is_python(file)


def _is_in(file: str, folders: tuple[str, ...]) -> bool:
    return any(file.startswith(folder + os.sep) for folder in folders)

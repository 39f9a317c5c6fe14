"""Small functions for the texts of the SMTP envelope and of negotiation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import milter

T = TypeVar("T")


def uniqueID() -> int:
    """Return a number that no other call in this process returns: 1, 2, 3, ...; from any thread."""
    package: Any = sys.modules[__package__]
    with package._seq_lock:
        package._seq += 1
        return int(package._seq)


def param2dict(params: Iterable[str]) -> dict[str, str | None]:
    """Return ESMTP parameters as a dictionary: names in upper case, None for a missing value."""
    pairs = (param.partition("=") for param in params)
    return {name.upper(): value if equals else None for name, equals, value in pairs}


def dictfromlist(args: Iterable[str]) -> dict[str, str]:
    """Return those ESMTP parameters that have a value as a dictionary, names in upper case."""
    return {name: value for name, value in param2dict(args).items() if name and value is not None}


def envcallback(func: Callable[..., T], args: Sequence[str]) -> T:
    """Call func with ESMTP parameters: NAME=value as keywords, the others in order."""
    plain = [arg for arg in args if "=" not in arg]
    return func(*plain, **dictfromlist(args))


def decode_mask(bits: int, names: Iterable[str]) -> list[str]:
    """Return those of `names` (constants of milter) whose bits are set, the rest as one number."""
    found = []
    for name in names:
        value: Any = getattr(milter, name)
        if bits & value:
            bits &= ~value
            found.append(name)
    if bits:
        found.append(hex(bits))
    return found

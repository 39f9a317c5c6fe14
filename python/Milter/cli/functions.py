"""A filter that is functions given to `milter`, as a class: what serves classes serves it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from Milter import Base
from Milter._plan import METHODS

__all__ = ["class_of"]

#: Steps whose functions get bytes, as methods of these names do.
_BYTES = ("envfrom", "envrcpt", "header")


class _Functions(Base):
    """What such a class has beside the functions."""

    _flags: int

    def _setctx(self, ctx: Any) -> None:
        """What setpriv keeps is the functions' own."""
        self._ctx = ctx

    def negotiate(self, opts: list[int]) -> int:
        """As `milter` itself: the actions that set_flags allows, the steps that have functions."""
        opts[0] &= self._flags
        return super().negotiate(opts)


def class_of(functions: Sequence[Callable[..., Any] | None], flags: int, name: str) -> type[Base]:
    """Returns a class whose objects call functions with the context of their connection.

    functions: for each of the engine's steps, as milter._callbacks() returns them. flags: the
    actions that they may use. name: what the filter is called.
    """
    methods: dict[str, Any] = {
        f"{name}_bytes" if name in _BYTES else name: _method(function)
        for name, function in zip(METHODS, functions, strict=True)
        if function is not None
    }
    return type(name, (_Functions,), {"_flags": flags, **methods})


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Base, *args: Any) -> Any:
        return function(self._ctx, *args)

    return method

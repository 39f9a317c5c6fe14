"""How headers are kept: with the bytes that they were written as."""

from __future__ import annotations

import re
from email.policy import Compat32
from typing import Any

__all__ = ["MimePolicy", "Written"]

_LINE_END = re.compile(r"\r\n|\r|\n")


class Written(str):
    """A header's value with the bytes that it was written as: the whole field, and the lines that
    are no fields behind it."""

    __slots__ = ("source",)
    source: bytes


class MimePolicy(Compat32):
    """The `compat32` policy, but headers that are not changed are written as they were."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        """Keeps the source of a header beside its value."""
        name, value = super().header_source_parse(sourcelines)
        written = Written(_LINE_END.sub("\n", value))
        written.source = "".join(sourcelines).encode("ascii", "surrogateescape")
        return name, written

    def header_store_parse(self, name: str, value: Any) -> tuple[str, Any]:
        """A value that the program sets: it has no source."""
        return name, str(value) if isinstance(value, Written) else value

    def header_fetch_parse(self, name: str, value: Any) -> Any:
        """The value alone, without its source."""
        return super().header_fetch_parse(name, self.header_store_parse(name, value)[1])

    def fold_binary(self, name: str, value: Any) -> bytes:
        """The lines of a header."""
        if not isinstance(value, Written):
            return super().fold_binary(name, value)
        if value.source.endswith((b"\r", b"\n")):
            return value.source
        return value.source + self.linesep.encode("ascii")

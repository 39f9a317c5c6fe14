"""How headers are kept: with the bytes that they were written as."""

from __future__ import annotations

import re
from email.policy import Compat32
from typing import Any

__all__ = ["MimePolicy", "Written"]

_LINE_END = re.compile(r"\r\n|\r|\n")
_LINE_END_BYTES = re.compile(rb"\r\n|\r|\n")
_FOLD = re.compile(r"[\r\n]+([ \t]?)")
_LONG = 998  # characters; a line of a header has no more (RFC 5322, 2.1.1)
# What is a line end to Python, and to `email` where it folds, but not in mail.
_NO_LINE_END = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")


class Written(str):
    """A header's value with the bytes that it was written as: the whole field, and the lines that
    are no fields behind it."""

    __slots__ = ("source",)
    source: bytes


class MimePolicy(Compat32):
    """The `compat32` policy, but headers that are not changed are written as they were."""

    #: Newer releases of `email` refuse to write a header that has odd line ends. What came so goes
    #: so, and values that a program sets are made safe below.
    verify_generated_headers = False

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        """Keeps the source of a header beside its value. White space in front of the colon, an old
        form (RFC 5322, 4.5), does not belong to the name."""
        name, value = super().header_source_parse(sourcelines)
        written = Written(_LINE_END.sub("\n", value))
        written.source = "".join(sourcelines).encode("ascii", "surrogateescape")
        return name.rstrip(" \t"), written

    def header_store_parse(self, name: str, value: Any) -> tuple[str, Any]:
        """A value that the program sets: it has no source. Its lines are folds: one that would
        begin a header of its own gets a space."""
        if not isinstance(value, str):
            return name, value
        value = _NO_LINE_END.sub(" ", value)
        return name, _FOLD.sub(lambda fold: "\n" + (fold[1] or " "), value.rstrip("\r\n"))

    def header_fetch_parse(self, name: str, value: Any) -> Any:
        """The value alone, without its source."""
        return super().header_fetch_parse(name, str(value) if isinstance(value, Written) else value)

    def fold(self, name: str, value: Any) -> str:
        """The lines of a header as text. `email` takes quadratic time for a line that nothing
        limits, so that long ones are folded all the same."""
        if not self.max_line_length and len(value) > _LONG:
            return self.clone(max_line_length=78).fold(name, value)
        return super().fold(name, value)

    def fold_binary(self, name: str, value: Any) -> bytes:
        """The lines of a header."""
        line_end = self.linesep.encode("ascii")
        if not isinstance(value, Written):
            return _LINE_END_BYTES.sub(line_end, super().fold_binary(name, value))
        if value.source.endswith((b"\r", b"\n")):
            return value.source
        return value.source + line_end

"""The SMTP reply that a filter's answer leads to."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Reply", "read_lines"]

_LINE = re.compile(r"([45]\d\d)(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)")


@dataclass(frozen=True)
class Reply:
    """What the SMTP client is told: code 550, enhanced code "5.7.1" or None, text with its lines
    joined by LF, enhanced codes taken off."""

    code: int
    enhanced: str | None
    text: str

    def __str__(self) -> str:
        """The reply as on the SMTP wire, lines joined by LF."""
        lines = self.text.split("\n")
        enhanced = f"{self.enhanced} " if self.enhanced else ""
        last = len(lines) - 1
        return "\n".join(
            f"{self.code}{'-' if number < last else ' '}{enhanced}{line}"
            for number, line in enumerate(lines)
        )


def read_lines(text: str) -> tuple[Reply, list[str]]:
    """Reads the text of a REPLYCODE packet: the reply, and what stands behind the code in each
    line. Raises ValueError that says what is wrong with it for any MTA."""
    code = text[:3]
    enhanced = None
    texts, rests = [], []
    for line in text.split("\r\n"):
        match = _LINE.fullmatch(line)
        if not match or "\n" in line or "\r" in line:
            raise ValueError(f"{line!r} is not a reply of code 4yz or 5yz and a text")
        if code != match[1]:
            raise ValueError(f"code {match[1]} in a reply that began with {code}")
        rest = match[3] or ""
        rests.append(rest)
        if found := _ENHANCED.match(rest):
            enhanced = enhanced or found[1]
            rest = rest[found.end() :]
        texts.append(rest)
    return Reply(int(code), enhanced, "\n".join(texts)), rests

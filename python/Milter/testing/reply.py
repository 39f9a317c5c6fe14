"""The SMTP reply that a filter's answer leads to."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Reply", "parse_reply"]

_LINE = re.compile(r"([45]\d\d)(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)")
_PERCENT = re.compile("%(.?)", re.DOTALL)


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


def parse_reply(text: str) -> Reply:
    """Reads the text of a REPLYCODE packet as Postfix does (sheet 8, "`y` check").

    Raises ValueError that says what is wrong with it. `%%` becomes `%`, and a single `%` is
    dropped, which is what the client of that MTA gets to see.
    """
    code = text[:3]
    enhanced = None
    texts = []
    for line in text.split("\r\n"):
        match = _LINE.fullmatch(line)
        if not match or "\n" in line or "\r" in line:
            raise ValueError(f"{line!r} is not a reply of code 4yz or 5yz and a text")
        if code != match[1]:
            raise ValueError(f"code {match[1]} in a reply that began with {code}")
        rest = match[3] or ""
        if rest[:1].isdigit() and rest[:1] != code[:1]:
            raise ValueError(f"the enhanced code of {line!r} does not agree with {code}")
        found = _ENHANCED.match(rest)
        if found:
            enhanced = enhanced or found[1]
            rest = rest[found.end() :]
        texts.append(_PERCENT.sub(r"\1", rest))
    return Reply(int(code), enhanced, "\n".join(texts))

"""Messages and addresses in the forms in which tests have them."""

from __future__ import annotations

import email.message
import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Address", "Content", "read_address", "read_content"]

Content = bytes | str | os.PathLike[str] | email.message.Message
"""A message: its bytes, the path of its file, or an email object."""
Address = str | Sequence[str]
"""An address, or an address and ESMTP arguments: "a@example.org", ("a@example.org", "SIZE=9")."""


def read_content(message: Content) -> bytes:
    """The bytes of a message, which may be given as a path or an email object. Raises ValueError
    for a str that is a message's text, OSError for a file that cannot be read."""
    if isinstance(message, bytes):
        return message
    if isinstance(message, email.message.Message):
        return message.as_bytes()
    if isinstance(message, str) and ("\n" in message or "\r" in message):
        raise ValueError(
            "a str is the path of a message's file, and this one has line ends: give the message "
            "itself as bytes, by text.encode()"
        )
    return Path(message).read_bytes()


def read_address(address: Address) -> list[str]:
    """An address and its ESMTP arguments."""
    return [address] if isinstance(address, str) else list(address)

"""IPv6 addresses as text and as bytes, IPv4 among them; kept for programs that import it."""

from __future__ import annotations

import socket

from Milter import utils

__all__ = ["PAT_IP4", "RE_IP4", "inet_ntop", "inet_pton"]

#: The pattern of an IPv4 address in a regular expression.
PAT_IP4 = utils.PAT_IP4
#: Matches a text that is an IPv4 address as a whole.
RE_IP4 = utils.ip4re


def inet_ntop(s: bytes) -> str:
    """Return the text of an IPv6 address of 16 bytes, `::FFFF:1.2.3.4` for an IPv4 one.

    Raises ValueError for another length.
    """
    text = socket.inet_ntop(socket.AF_INET6, s)
    return text.replace("::ffff:", "::FFFF:", 1) if "." in text else text


def inet_pton(p: str) -> bytes:
    """Return the 16 bytes of an IPv6 address, or of an IPv4 one as `::FFFF:1.2.3.4`.

    Raises ValueError for what is none.
    """
    if RE_IP4.match(p):
        p = f"::FFFF:{p}"
    try:
        return socket.inet_pton(socket.AF_INET6, p)
    except (OSError, ValueError) as error:
        raise ValueError(f"not an IP address: {p}") from error

"""The address behind a signed sender: SRS, SES, BATV and their like. Nothing is verified."""

from __future__ import annotations

import re

__all__ = ["unsign"]

_SRS = re.compile(r"SRS(?:0[=+-]|1[=+-][^=]*=[^=]*=[=+-])[^=]*=[^=]*=([^=]+)=(.+)\Z", re.I | re.S)
_TAGS = re.compile(r"(?:prvs=[^=]*=|btv1==[^=]*==|msprvs1=[^=]*=)([^=]+)\Z", re.I)
_SES = re.compile(r"SES=[^=]*=[^=]*=([^=]+)=(.+)\Z", re.I | re.S)


def unsign(s: str) -> str:
    """Return the address that a signed one stands for; one that is not signed as it is.

    Known are SRS0 and SRS1 (the forwarder's address -> the sender's), SES, and BATV (`prvs=`).

    >>> unsign('SRS0=8Y3CZ=3U=jsconnor.com=bills@bmsi.com')
    'bills@jsconnor.com'
    >>> unsign('prvs=1234567890=user@example.com')
    'user@example.com'
    """
    user, at, domain = s.rpartition("@")
    if not at:
        return s
    if found := _SRS.match(user) or _SES.match(user):
        return f"{found[2]}@{found[1]}"
    if found := _TAGS.match(user):
        return f"{found[1]}@{domain}"
    return s

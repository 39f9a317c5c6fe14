"""Whether a host's name looks like one that an access provider gives to whoever has an address."""

from __future__ import annotations

import re

from Milter.utils import ip4re

__all__ = ["is_dynip"]

_NUMBER = re.compile("[0-9]{1,3}")

#: Parts of an address, by their places in it, that the first four numbers of a name end with.
_LAST = ((2, 3), (3, 2), (0, 1, 2), (2, 1, 0), (3, 2, 1))
#: And those that they begin with.
_FIRST = ((3, 2), (3, 0, 1))

#: What stands directly before the address's last part where a label ends with it.
_BEFORE = ("-", "h", "cust", "user")
#: How names of access providers look. The address's last part is taken out before, once.
_FORMS = re.compile(
    "|".join(
        [
            r"-[0-9]*-[0-9]*\.",  # two numbers at the end of a label
            r"-ppp[0-9]*\.",
            r"xdsl-[0-9]*\.",
            r"\.(?:adsl|cable)\.",
            r"h[0-9a-f]{12}\.",  # a hardware address
            r"s[0-9a-f]{16}\.[a-z][a-z]\.",
            r"h[0-9]*n[0-9]*c[0-9]*o[0-9]*\.",
            r"pcp[0-9]{6,10}pcs\.",
            r"no-reverse",
        ]
    )
)


def is_dynip(host: str, addr: str) -> bool:
    """Return whether a host's name looks like that of a dynamic address.

    host: the name, as `connect` gets it; one in brackets means that there is none, and is dynamic.
    addr: the IPv4 address. For anything else (IPv6, nothing at all) only brackets and the address
    itself in the name count. Names of static addresses often look the same: a reason to look
    closer, not to refuse mail.

    >>> is_dynip('mail.example.com', '192.0.2.7')
    False
    >>> is_dynip('c-192-0-2-7.cable.example.net', '192.0.2.7')
    True
    >>> is_dynip('[192.0.2.7]', '192.0.2.7')
    True
    """
    name = host.lower()
    if (name.startswith("[") and name.endswith("]")) or (addr and addr.lower() in name):
        return True
    if not ip4re.match(addr):
        return False
    parts = [int(part) for part in addr.split(".")]
    found = list(_NUMBER.finditer(name))
    numbers = [int(each[0]) for each in found[:4]]
    if any(numbers[-len(run) :] == [parts[at] for at in run] for run in _LAST):
        return True
    if any(numbers[: len(run)] == [parts[at] for at in run] for run in _FIRST):
        return True
    if any("".join(map(str, three)) in name for three in (parts[:3], parts[1:])):
        return True
    if any(mark.join(f"{part:02x}" for part in parts) in name for mark in ("", "-")):
        return True
    last = next((each for each in found if int(each[0]) == parts[3]), None)
    if last:
        before, after = name[: last.start()], name[last.end() :]
        if after.startswith(".") and (
            not before or before.endswith(_BEFORE) or "ppp" in before.rpartition(".")[2]
        ):
            return True
        if before.endswith("p") and after.startswith(".pool"):
            return True
        name = f"{before} {after}"
    return _FORMS.search(name) is not None

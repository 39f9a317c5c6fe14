"""Mail filters (milters) for Postfix and Sendmail.

Subclass `Base`, override the callbacks you need, and serve the class: with `runmilter`, or with
`Server` where you want more say. `Milter.testing` sends messages to a filter without an MTA.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import milter
from milter import *  # noqa: F403 - its constants and functions belong to this package's names

from ._base import Base, DisabledAction, Milter
from ._decorators import (
    MACRO_CALLBACKS,
    OPTIONAL_CALLBACKS,
    decode,
    enable_protocols,
    header_leading_space,
    nocallback,
    noreply,
    rejected_recipients,
    symlist,
)
from ._helpers import decode_mask, dictfromlist, envcallback, param2dict, uniqueID
from ._run import close_callback, connect_callback, negotiate_callback, runmilter
from ._server import Server, Stats

__version__: str = milter._version

#: Makes the object of each connection for `runmilter`; set it to your class.
factory: Callable[[], Any] = Milter

# The last number that uniqueID gave, and its lock: programs with a runmilter of their own use them.
_seq = 0
_seq_lock = threading.Lock()

__all__ = [
    "MACRO_CALLBACKS",
    "OPTIONAL_CALLBACKS",
    "Base",
    "DisabledAction",
    "Milter",
    "Server",
    "Stats",
    "close_callback",
    "connect_callback",
    "decode",
    "decode_mask",
    "dictfromlist",
    "enable_protocols",
    "envcallback",
    "factory",
    "header_leading_space",
    "milter",
    "negotiate_callback",
    "nocallback",
    "noreply",
    "param2dict",
    "rejected_recipients",
    "runmilter",
    "symlist",
    "uniqueID",
]
__all__ += [name for name in dir(milter) if not name.startswith("_")]

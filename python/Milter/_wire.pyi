"""The milter protocol's packets: from fields to bytes and back (src/python/wire.c)."""

from collections.abc import Sequence
from typing import Any, Final

_Field = int | bytes | Sequence[bytes]

TO_FILTER: Final[int]
TO_MTA: Final[int]
VERSION_MIN: Final[int]
VERSION_MAX: Final[int]
ALL_ACTIONS: Final[int]
ALL_PROTOCOL: Final[int]
CHUNK: Final[int]

COMMANDS: Final[dict[bytes, tuple[str, str]]]
REPLIES: Final[dict[bytes, tuple[str, str]]]
ACTIONS: Final[dict[str, int]]
PROTOCOL: Final[dict[str, int]]

class PacketError(ValueError): ...

def encode(direction: int, command: bytes, /, *fields: _Field) -> bytes: ...

class Decoder:
    limit: int
    def __init__(self, direction: int, limit: int = ...) -> None: ...
    @property
    def pending(self) -> int: ...
    def feed(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def next(self) -> tuple[Any, ...] | None: ...

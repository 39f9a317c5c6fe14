"""What a filter asks to change in a message, as typed objects, one class for each action."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from Milter.testing.text import to_str

if TYPE_CHECKING:
    from Milter.testing.draft import Draft

__all__ = [
    "AddHeader",
    "AddRecipient",
    "Change",
    "ChangeHeader",
    "ChangeSender",
    "DeleteRecipient",
    "InsertHeader",
    "Quarantine",
    "ReplaceBody",
    "needed_action",
    "read_change",
    "value_fault",
]


@dataclass(frozen=True)
class Change:
    """Base of all changes. Texts are str as the filter sent them (surrogateescape). str() tells the
    change in words."""

    def apply(self, draft: Draft) -> None:
        """Makes the change in a queued message; how, is that MTA's."""
        raise NotImplementedError


@dataclass(frozen=True)
class AddHeader(Change):
    """addheader(name, value)."""

    name: str
    value: str

    def apply(self, draft: Draft) -> None:
        """Appends the header below all others."""
        draft.add_header(self.name, self.value)

    def __str__(self) -> str:
        return f"add header {self.name}: {self.value}"


@dataclass(frozen=True)
class InsertHeader(Change):
    """addheader(name, value, index); 0 is the very top."""

    index: int
    name: str
    value: str

    def apply(self, draft: Draft) -> None:
        """Inserts the header, counting the MTA's own Received."""
        draft.insert_header(self.index, self.name, self.value)

    def __str__(self) -> str:
        return f"insert header at {self.index}, {self.name}: {self.value}"


@dataclass(frozen=True)
class ChangeHeader(Change):
    """chgheader(name, index, value); an empty value deletes. The first of a name is 1."""

    index: int
    name: str
    value: str

    def apply(self, draft: Draft) -> None:
        """Replaces or deletes the header; appends one where there are not so many of the name."""
        draft.change_header(self.index, self.name, self.value)

    def __str__(self) -> str:
        which = f"header {self.name} ({self.index})"
        return f"change {which}: {self.value}" if self.value else f"delete {which}"


@dataclass(frozen=True)
class AddRecipient(Change):
    """addrcpt(address, params); params is None when the action without them was used."""

    address: str
    params: str | None = None

    def apply(self, draft: Draft) -> None:
        """Adds the recipient to the envelope."""
        draft.add_recipient(self.address, self.params)

    def __str__(self) -> str:
        return _with_params(f"add recipient {self.address}", self.params)


@dataclass(frozen=True)
class DeleteRecipient(Change):
    """delrcpt(address)."""

    address: str

    def apply(self, draft: Draft) -> None:
        """Takes the recipient out of the envelope; without effect if it is not there."""
        draft.delete_recipient(self.address)

    def __str__(self) -> str:
        return f"delete recipient {self.address}"


@dataclass(frozen=True)
class ChangeSender(Change):
    """chgfrom(address, params)."""

    address: str
    params: str | None = None

    def apply(self, draft: Draft) -> None:
        """Puts another sender, and its parameters, into the envelope."""
        draft.change_sender(self.address, self.params)

    def __str__(self) -> str:
        return _with_params(f"change sender to {self.address}", self.params)


@dataclass(frozen=True)
class ReplaceBody(Change):
    """replacebody(...). body: all chunks together, line ends as the filter sent them."""

    body: bytes

    def apply(self, draft: Draft) -> None:
        """Puts the new body in the place of the old one."""
        draft.replace_body(self.body)

    def __str__(self) -> str:
        return f"replace body: {len(self.body)} bytes"


@dataclass(frozen=True)
class Quarantine(Change):
    """quarantine(reason)."""

    reason: str

    def apply(self, draft: Draft) -> None:
        """Notes the reason: the message is held, not delivered."""
        draft.quarantine(self.reason)

    def __str__(self) -> str:
        return f"quarantine: {self.reason}"


# Each changing reply: the action that it needs, and what it becomes.
_KINDS: dict[bytes, tuple[str, Callable[..., Change]]] = {
    b"h": ("ADDHDRS", AddHeader),
    b"i": ("ADDHDRS", InsertHeader),
    b"m": ("CHGHDRS", ChangeHeader),
    b"+": ("ADDRCPT", AddRecipient),
    b"2": ("ADDRCPT_PAR", lambda address, params="": AddRecipient(address, params)),
    b"-": ("DELRCPT", DeleteRecipient),
    b"e": ("CHGFROM", ChangeSender),
    b"b": ("CHGBODY", ReplaceBody),
    b"q": ("QUARANTINE", Quarantine),
}


def _with_params(words: str, params: str | None) -> str:
    return f"{words} {params}" if params else words


def needed_action(command: bytes) -> str | None:
    """The name (in Milter._wire.ACTIONS) of what a reply needs; None if it changes nothing."""
    kind = _KINDS.get(command)
    return kind[0] if kind else None


_LINE = re.compile(r"(?:\r\n|\r(?!\n)|\n)([ \t]*)(?=(\r|\n|\Z)?)")


def value_fault(change: Change) -> str | None:
    """What is wrong with the lines of a header's value, if the change has one."""
    for line in _LINE.finditer(getattr(change, "value", "")):
        if not line[1]:
            return "a line of the value does not start with white space: it begins another header"
        if line[2] is not None:
            return "a line of the value is white space alone: it can end the headers"
    return None


def read_change(command: bytes, fields: tuple[Any, ...]) -> Change:
    """The change that a reply packet asks for. Only for those that have a needed_action."""
    make = _KINDS[command][1]
    if make is ReplaceBody:
        return ReplaceBody(fields[0])
    return make(*(to_str(field) if isinstance(field, bytes) else field for field in fields))

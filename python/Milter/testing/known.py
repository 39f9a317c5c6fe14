"""The values of macros that an MTA knows at the moment, and the packets that tell filters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from Milter import _wire
from Milter.testing.client import Macros, bare_macros, macro_key
from Milter.testing.profile import Profile, Values
from Milter.testing.steps import STEPS
from Milter.testing.text import to_bytes
from Milter.testing.trace import Packet

__all__ = ["KnownMacros"]


class KnownMacros:
    """What is known, and to whom it is told.

    given: values by the caller, which come before the MTA's own. lists: the names that the filter
    wants, by stage.
    """

    def __init__(self, profile: Profile, given: Macros) -> None:
        self._profile = profile
        self._given = bare_macros(given)
        self._listed = {macro_key(name) for usual in profile.macros.values() for name in usual}
        self.lists: dict[str, tuple[str, ...]] = {}
        self._session: Values = {}
        self._values: Values = {}
        self._extra: dict[str, list[str]] = {}  # on no list, by the stage that sends them
        self._packets: dict[str, tuple[bytes, Packet]] = {}  # as long as no value changes

    def get(self, name: str) -> str | None:
        """A macro's value; its name without braces."""
        return self._values.get(name)

    def know(self, values: Values) -> None:
        """Takes values, by names without braces."""
        self._values = {**self._values, **values, **self._given}
        self._packets.clear()

    def begin_session(self, values: Values) -> None:
        """Forgets all, and takes those that last as long as the client stays."""
        self._values = {}
        self.know(values)
        self._session = self._values
        self._send_also("connect", (name for name in self._given if name not in values))

    def begin_message(self, values: Values) -> None:
        """Forgets the last message's, and takes those of the next one."""
        self._values = self._session
        self.know(values)

    @contextmanager
    def more(self, macros: Macros) -> Iterator[None]:
        """Gives values from the next MAIL on, until it is left."""
        values = bare_macros(macros)
        self._send_also("mail", values)
        given, self._given = self._given, {**self._given, **values}
        try:
            yield
        finally:
            self._given = given

    def _send_also(self, stage: str, names: Iterable[str]) -> None:
        """Macros that are on no list of the MTA, but were given by the caller, go with a stage."""
        self._extra[stage] = [
            name if len(name) == 1 else f"{{{name}}}" for name in names if name not in self._listed
        ]

    def packet(self, step: str) -> tuple[bytes, Packet] | None:
        """What is told before a step, encoded and as fields; None for nothing."""
        if step in self._packets:
            return self._packets[step]
        stage = self._profile.macro_stage.get(step, step)
        names = self._profile.macro_names(stage, self.lists)
        if stage not in self.lists and self._extra.get(stage):
            names = (*(names or ()), *self._extra[stage])
        if names is None:
            return None
        strings = []
        for name in names:
            value = self._values.get(macro_key(name))
            if value is not None:
                strings += [to_bytes(name), to_bytes(value)]
        packet: Packet = (b"D", STEPS[step].command, strings)
        self._packets[step] = (_wire.encode(_wire.TO_FILTER, *packet), packet)
        return self._packets[step]

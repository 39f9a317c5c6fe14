"""Configuration files of filters: options that may be missing, lists, and lists of addresses."""

from __future__ import annotations

from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Any

__all__ = ["MilterConfigParser"]


class MilterConfigParser(ConfigParser):
    """A ConfigParser whose options may be missing: what is not there is None, or a default.

    defaults: what `get` returns for options that are nowhere else, whatever the section; the other
    methods do not see them.
    """

    def __init__(self, defaults: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._fallbacks = {} if defaults is None else defaults

    def get(  # type: ignore[override]
        self, sect: str, opt: str, fallback: Any = None, **kwds: Any
    ) -> Any:
        """Return an option's text; `fallback` or else the constructor's default if it, or its
        section, is not there."""
        if fallback is None:
            fallback = self._fallbacks.get(opt)
        return super().get(sect, opt, fallback=fallback, **kwds)

    def getlist(self, sect: str, opt: str) -> list[str]:
        """Return the items of an option, which are separated by commas; [] if it is not there."""
        if not self.has_option(sect, opt):
            return []
        return [item.strip() for item in self.get(sect, opt).split(",")]

    def getaddrset(self, sect: str, opt: str, dir: str = "") -> dict[str, list[str]]:
        """Return the addresses of an option as a dictionary: domain in lower case -> users.

        An item is an address, or `file:DOMAIN` for a file of that name in `dir`, whose words are
        the domain's users. Raises ValueError for an item without "@", OSError for a file that
        cannot be read.
        """
        found: dict[str, list[str]] = {}
        for item in self.getlist(sect, opt):
            if item.startswith("file:"):
                domain = item.removeprefix("file:").lower()
                words = Path(dir, item.removeprefix("file:")).read_text(encoding="utf-8").split()
                found.setdefault(domain, []).extend(words)
            elif item:
                user, at, domain = item.rpartition("@")
                if not at or "@" in user:
                    raise ValueError(f"[{sect}] {opt}: not an address: {item!r}")
                found.setdefault(domain.lower(), []).append(user)
        return found

    def getaddrdict(self, sect: str, opt: str, dir: str = "") -> dict[str, str]:
        """Return a dictionary of addresses -> name of the option that has them.

        `opt` lists such options of the section; `dir` is not used.
        """
        return {
            address: name
            for name in self.getlist(sect, opt)
            for address in self.getlist(sect, name)
        }

    def getdefault(self, sect: str, opt: str, default: Any = None) -> Any:
        """Return an option's text, which must be in the section or in [DEFAULT]."""
        return self.get(sect, opt) if self.has_option(sect, opt) else default

    def getintdefault(self, sect: str, opt: str, default: Any = None) -> Any:
        """Return an option as a number, or the default. Raises ValueError if it is no number."""
        if not self.has_option(sect, opt):
            return default
        try:
            return int(self.get(sect, opt))
        except ValueError as error:
            raise ValueError(f"[{sect}] {opt}: not a number: {self.get(sect, opt)!r}") from error

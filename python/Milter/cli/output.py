"""Results for programs: as JSON, and as files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from Milter.cli.exits import CommandError
from Milter.testing import CallbackError, FilterError, ReplaceBody, Reply, Result
from Milter.testing.changes import Change
from Milter.testing.repeating import Load

__all__ = ["Folder", "described", "described_load"]


def described(name: str, told: Result | FilterError) -> dict[str, Any]:
    """A message's outcome, or the error that ended it, for json.dumps. Bytes that are no UTF-8 are
    lone surrogates. Of a new body only the size is in it."""
    if isinstance(told, FilterError):
        return {"message": name, "error": _error(told)}
    return {
        "message": name,
        "verdict": told.verdict.value,
        "step": told.step,
        "reply": _reply(told.reply),
        "quarantine": told.quarantine,
        "recipients": [
            {"address": each.address, "verdict": each.verdict.value, "reply": _reply(each.reply)}
            for each in told.recipients
        ],
        "steps": [row._asdict() for row in told.steps()],
        "changes": [_change(each) for each in told.changes],
        "envelope": {"sender": told.envelope.sender, "rcpts": list(told.envelope.rcpts)},
        "diff": told.diff() if told.verdict.queued else "",
        "errors": [_error(each) for each in told.errors],
    }


def described_load(load: Load) -> dict[str, Any]:
    """The figures of a load; times in seconds."""
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
    return {
        "messages": load.messages,
        "seconds": load.seconds,
        "latency": {name: load.percentile(share) for name, share in shares.items()},
        "verdicts": {verdict.value: count for verdict, count in load.verdicts.items()},
        "error": str(load.error[1]) if load.error else None,
    }


def _reply(reply: Reply | None) -> dict[str, Any] | None:
    return None if reply is None else dataclasses.asdict(reply)


def _error(error: FilterError) -> dict[str, Any]:
    kind = "exception" if isinstance(error, CallbackError) else getattr(error, "kind", "other")
    return {"kind": kind, "step": getattr(error, "step", None), "text": str(error)}


def _change(change: Change) -> dict[str, Any]:
    if isinstance(change, ReplaceBody):
        values: dict[str, Any] = {"size": len(change.body)}
    else:
        values = {each.name: getattr(change, each.name) for each in dataclasses.fields(change)}
    return {"change": type(change).__name__, **values}


class Folder:
    """Where messages are written, each to a file of its own; made if it is missing. A name that was
    used before gets a number. Raises CommandError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._used: set[str] = set()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error

    def write(self, name: str, result: Result) -> None:
        """Writes a result's message."""
        path = Path(name)
        number = 1
        while name in self._used:
            number += 1
            name = f"{path.stem}-{number}{path.suffix}"
        self._used.add(name)
        try:
            with (self._path / name).open("wb") as file:
                result.write(file)
        except OSError as error:
            raise CommandError(f"{self._path / name}: {error.strerror}") from error

"""Filters as the tests run them: ordinary programs in processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from mta import wait_for

FILTERS = Path(__file__).parent / "filters"
# Another package with the same API can be tried under its own interpreter.
PYTHON = os.environ.get("MILTERKIT_FILTER_PYTHON", sys.executable)

Plan = dict[str, list[list[Any]]]
Event = dict[str, Any]


def _restored(value: Any) -> Any:
    """An event with its bytes as bytes again."""
    if isinstance(value, dict):
        if value.keys() == {"bytes"}:
            return value["bytes"].encode("latin-1")
        return {key: _restored(each) for key, each in value.items()}
    return [_restored(each) for each in value] if isinstance(value, list) else value


class Filter:
    """A running filter program. Use as a context manager; it ends by SIGTERM and must do so well.

    `program` is a file in filters/, `where` its socket as a specification that it understands,
    `folder` is given to it for plans and events.
    """

    def __init__(self, program: str, where: str, folder: Path, *more: str) -> None:
        self.where = where
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.errors = folder / "stderr"
        self._numbers = count()
        self.plan({})
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [PYTHON, "-W", "error", FILTERS / program, where, folder, *more],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                umask=0,  # Postfix's user must reach the socket
            )

    def __enter__(self) -> "Filter":
        try:
            wait_for(f"{self.where} to answer", lambda: self.answers() or self._ended())
            assert self.process.returncode is None, f"the filter ended:\n{self.stderr()}"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.returncode is None:
            code = self.stop()
            assert kind or code == 0, f"the filter ended by {code}:\n{self.stderr()}"

    def answers(self) -> bool:
        """Whether its socket takes connections."""
        kind, _, rest = self.where.partition(":")
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        address: Any = rest
        if family == socket.AF_INET:
            port, _, host = rest.partition("@")
            address = (host, int(port))
        with socket.socket(family) as probe:
            return probe.connect_ex(address) == 0

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def _end(self) -> int:
        self.process.kill()
        return self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; kills after 20 seconds. Returns the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            return self._end()

    def stderr(self) -> str:
        """What the program wrote."""
        return self.errors.read_text(errors="replace")

    def plan(self, plan: Plan) -> None:
        """Says what the scripted filter does on its next connections. Its events are then those
        of these connections: what is still to come from earlier ones does not count."""
        self.events_file = self.folder / f"events-{next(self._numbers)}"
        self.events_file.touch()
        (self.folder / "plan.json").write_text(
            json.dumps(
                {"events": self.events_file.name, **plan},
                default=lambda value: {"bytes": value.decode("latin-1")},
            )
        )

    def events(self) -> list[Event]:
        """What the scripted filter saw since the last plan, in order."""
        *lines, _ = self.events_file.read_text().split("\n")
        return [_restored(json.loads(line)) for line in lines]

    def steps(self, step: str) -> list[Event]:
        """Of these, the events of one step."""
        return [event for event in self.events() if event.get("step") == step]

    def wait(self, step: str, times: int = 1) -> list[Event]:
        """Waits for events that no SMTP reply waits for."""
        return wait_for(
            f"{times} x {step} in {self.events_file}",
            lambda: events if len(events := self.steps(step)) >= times else None,
        )

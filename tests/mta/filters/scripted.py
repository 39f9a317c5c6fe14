"""A filter that writes down what it sees, and does at each step what a plan says.

Usage: scripted.py SOCKET FOLDER [POLICY [WAY]]. WAY is lowlevel: the `milter` module is given
functions; patient: a Milter.Server sends progress five times a second; else runmilter is called.

FOLDER/plan.json is read anew for each connection: a step's name, or the name and the number of the
message ("eom 2"), with a list of things to do in order, each a list:
  ["return", NAME]       end the step with this verdict (otherwise it is CONTINUE)
  ["raise", TEXT]        raise a RuntimeError
  ["wait", NAME]         go on when the file FOLDER/NAME exists
  ["until", NAME, WHAT]  end the step with verdict WHAT, unless the file FOLDER/NAME exists
  ["refused", ACTION...] call an action that must fail, and write down how
  [ACTION, ARGUMENT...]  call a method of the filter
The plan's "events" names the file in FOLDER that gets one line of JSON for each step of such a
connection. Bytes are written {"bytes": Latin-1 text}.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import Milter
import milter

SOCKET, FOLDER = sys.argv[1], Path(sys.argv[2])
MACROS = (
    *("j", "v", "_", "i", "{i}", "{j}", "{daemon_name}", "{daemon_addr}", "{client_addr}"),
    *("{client_name}", "{mail_addr}", "{mail_host}", "{mail_mailer}", "{rcpt_addr}"),
    *("{rcpt_host}", "{rcpt_mailer}", "{nothing}"),
)


def argument(value: Any) -> Any:
    """An argument from the plan, in which bytes cannot stand as such."""
    return value["bytes"].encode("latin-1") if isinstance(value, dict) else value


class Scripted(Milter.Base):
    """One connection."""

    def __init__(self) -> None:
        self.plan = json.loads((FOLDER / "plan.json").read_text())
        self.message = 0

    def write_down(self, event: dict[str, Any]) -> None:
        """Adds a line to the events."""
        line = json.dumps(event, default=lambda value: {"bytes": value.decode("latin-1")})
        with (FOLDER / self.plan["events"]).open("a") as events:
            events.write(line + "\n")

    def step(self, step: str, *args: object) -> int:
        """Writes a step down and does what is planned for it."""
        macros = {name: self.getsymval(name) for name in MACROS}
        macros = {name: value for name, value in macros.items() if value is not None}
        self.write_down({"step": step, "message": self.message, "args": args, "macros": macros})
        for what, *rest in self.plan.get(f"{step} {self.message}", self.plan.get(step, [])):
            if what == "return":
                return int(getattr(Milter, rest[0]))
            if what == "raise":
                raise RuntimeError(rest[0])
            if what == "until":
                if not (FOLDER / rest[0]).exists():
                    return int(getattr(Milter, rest[1]))
            elif what == "wait":
                while not (FOLDER / rest[0]).exists():
                    time.sleep(0.01)
            elif what == "refused":
                try:
                    getattr(self, rest[0])(*map(argument, rest[1:]))
                except Exception as error:
                    kinds = [kind.__name__ for kind in type(error).__mro__]
                    self.write_down({"refused": rest[0], "kinds": kinds, "text": str(error)})
                else:
                    self.write_down({"refused": rest[0], "kinds": [], "text": "nothing was raised"})
            else:
                getattr(self, what)(*map(argument, rest))
        return int(Milter.CONTINUE)

    def connect(self, hostname, family, hostaddr):  # type: ignore[no-untyped-def]
        return self.step("connect", hostname, int(family), hostaddr)

    def hello(self, name):  # type: ignore[no-untyped-def]
        return self.step("hello", name)

    def envfrom(self, sender, *params):  # type: ignore[no-untyped-def]
        self.message += 1
        return self.step("envfrom", sender, *params)

    def envrcpt(self, rcpt, *params):  # type: ignore[no-untyped-def]
        return self.step("envrcpt", rcpt, *params)

    def data(self):  # type: ignore[no-untyped-def]
        return self.step("data")

    def header(self, field, value):  # type: ignore[no-untyped-def]
        return self.step("header", field, value)

    def eoh(self):  # type: ignore[no-untyped-def]
        return self.step("eoh")

    def body(self, chunk):  # type: ignore[no-untyped-def]
        return self.step("body", chunk)

    def unknown(self, cmd):  # type: ignore[no-untyped-def]
        return self.step("unknown", cmd)

    def eom(self):  # type: ignore[no-untyped-def]
        return self.step("eom")

    def abort(self):  # type: ignore[no-untyped-def]
        return self.step("abort")

    def close(self):  # type: ignore[no-untyped-def]
        return self.step("close")


def low_level() -> None:
    """Serves without runmilter."""

    def calls(method: str) -> Any:
        return lambda ctx, *args: getattr(ctx.getpriv(), method)(*args)

    milter.set_connect_callback(Milter.connect_callback)
    milter.set_helo_callback(calls("hello"))
    milter.set_envfrom_callback(calls("envfrom_bytes"))
    milter.set_envrcpt_callback(calls("envrcpt_bytes"))
    milter.set_header_callback(calls("header_bytes"))
    for step in ("eoh", "body", "eom", "abort"):
        getattr(milter, f"set_{step}_callback")(calls(step))
    milter.set_close_callback(Milter.close_callback)
    milter.register(
        "scripted",
        data=calls("data"),
        unknown=calls("unknown"),
        negotiate=Milter.negotiate_callback,
    )
    milter.setconn(SOCKET)
    milter.opensocket(True)
    milter.main()


policy, way = [*sys.argv[3:], *("TEMPFAIL", "runmilter")[len(sys.argv) - 3 :]]
milter.set_exception_policy(getattr(Milter, policy))
Milter.factory = Scripted
Milter.set_flags(milter.CURR_ACTS)
if way == "lowlevel":
    low_level()
elif way == "patient":
    Milter.Server(Scripted, SOCKET, progress=0.2).serve_forever()
else:
    Milter.runmilter("scripted", SOCKET, 60)

"""Tells, once, of a macro that a filter reads and that its MTA does not send, and what to do."""

from __future__ import annotations

import logging
from typing import Any

from ._decorators import symlists
from .macros import CALLBACK, LAST_STAGE, MTAS, Lack, MtaMacros, mta_of, written

_logger = logging.getLogger("Milter")
#: What was looked at already: class, name, callback.
_seen: set[tuple[type, str, str]] = set()


def macro_missed(obj: Any, name: str) -> None:
    """Log that a macro has no value in the callback that runs, if the MTA would have to be told
    to send it; nothing for one that only some messages or clients have. Once for each class,
    name and callback; cheap from then on.

    At the level INFO: programs that were written for another library, and read what there may be,
    must not begin to write to standard error, as Python does with warnings nobody takes.
    """
    step = getattr(obj._ctx, "_step", None)
    if step is None or not isinstance(name, str) or not _logger.isEnabledFor(logging.INFO):
        return
    callback = step().replace("helo", "hello")
    key = (type(obj), name, callback)
    if key in _seen or callback not in LAST_STAGE:
        return
    _seen.add(key)
    mta = mta_of(obj._ctx.getsymval)
    hints = [
        _hint(obj, each, written(name), callback) for each in ([mta] if mta else MTAS.values())
    ]
    if all(hints):
        _logger.info("macro %s has no value in %s: %s", name, callback, "; ".join(map(str, hints)))


def _hint(obj: Any, mta: MtaMacros, name: str, callback: str) -> str | None:
    lack = mta.lack(name, callback)
    if lack is Lack.UNKNOWN:
        braced = f"{{{name}}}"
        meant = f": write {braced}" if braced in mta.known else ""
        return f"{mta.mta} has no such macro{meant}"
    since, when = mta.known[name]
    if when:
        return None
    if lack is Lack.LATER:
        return f"{mta.mta} has it from {CALLBACK[since]} on"
    asking = f'let the filter ask for it, by @Milter.symlist("{name}") on {CALLBACK[since]}'
    if CALLBACK[since] in symlists(type(obj)):  # that list takes the place of the MTA's
        return f"{mta.mta} is not asked for it: {asking}"
    line = mta.setting(since, [name])
    return f"{mta.mta} has to be told to send it: {asking}, or by {mta.file}: {line}"

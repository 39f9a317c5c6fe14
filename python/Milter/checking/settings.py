"""The lines of an MTA's configuration that are for a filter, its macros included."""

from __future__ import annotations

from Milter import macros
from Milter._sockets import Socket
from Milter.checking.checks.macros import missing_macros
from Milter.checking.subject import Subject

__all__ = ["settings"]


def settings(
    subject: Subject, spec: str, name: str, mtas: tuple[macros.MtaMacros, ...]
) -> list[tuple[str, list[str]]]:
    """Pairs of a file and the lines to put there. spec: where the filter listens, as it is told
    itself; name: what Sendmail calls it. Raises ValueError if an MTA could not connect there."""
    where = Socket.parse(spec)
    found = []
    for mta in mtas:
        missing = missing_macros(subject, mta)
        stages = [stage for stage in macros.STAGES if stage in missing]
        lines = [mta.setting(stage, missing[stage]) for stage in stages]
        found += _FILES[mta.mta](where, name, lines)
    return found


def _postfix(where: Socket, _name: str, lines: list[str]) -> list[tuple[str, list[str]]]:
    at = where.postfix()
    main = [f"smtpd_milters = {at}", "non_smtpd_milters = $smtpd_milters",
            "milter_default_action = tempfail", *lines]  # fmt: skip
    master = [f"-o smtpd_milters={at}", "-o milter_default_action=tempfail",
              *(f"-o {{ {line} }}" for line in lines)]  # fmt: skip
    return [
        ("Postfix, main.cf, for all mail", main),
        ("Postfix, master.cf, for one service instead, below its line",
         [f"  {line}" for line in master]),
    ]  # fmt: skip


def _sendmail(where: Socket, name: str, lines: list[str]) -> list[tuple[str, list[str]]]:
    equates = f"S={where.sendmail()}, F=T, T=C:10s;S:10s;R:10s;E:5m"
    return [("Sendmail, sendmail.mc", [f"INPUT_MAIL_FILTER(`{name}', `{equates}')dnl", *lines])]


_FILES = {macros.POSTFIX.mta: _postfix, macros.SENDMAIL.mta: _sendmail}

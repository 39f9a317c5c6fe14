"""The lines of an MTA's configuration that are for a filter, its macros included."""

from __future__ import annotations

from Milter import macros
from Milter.checking.checks.macros import missing_macros
from Milter.checking.subject import Subject

__all__ = ["settings"]


def settings(
    subject: Subject, spec: str, name: str, mtas: tuple[macros.MtaMacros, ...]
) -> list[tuple[str, list[str]]]:
    """Pairs of a file and the lines to put there. spec: where the filter listens, as it is told
    itself; name: what Sendmail calls it. Raises ValueError if no MTA could connect there."""
    found = []
    for mta in mtas:
        missing = missing_macros(subject, mta)
        stages = [stage for stage in macros.STAGES if stage in missing]
        lines = [mta.setting(stage, missing[stage]) for stage in stages]
        found += _FILES[mta.mta](spec, name, lines)
    return found


def _parts(spec: str) -> tuple[str, str, str]:
    """A specification's kind (unix, inet, inet6), path or port, and host."""
    kind, colon, rest = spec.partition(":")
    kind = kind.lower() or "unix"
    if not colon:
        kind, rest = "unix", spec
    if kind in ("unix", "local"):
        return "unix", rest, ""
    port, _, host = rest.partition("@" if "@" in rest else ":")
    if kind not in ("inet", "inet6") or not port:
        raise ValueError(f"{spec!r} names no socket that an MTA could connect to")
    return kind, port, host.strip("[]") or {"inet": "127.0.0.1", "inet6": "::1"}[kind]


def _postfix(spec: str, _name: str, lines: list[str]) -> list[tuple[str, list[str]]]:
    kind, at, host = _parts(spec)
    where = f"unix:{at}" if kind == "unix" else f"inet:{f'[{host}]' if ':' in host else host}:{at}"
    main = [f"smtpd_milters = {where}", "non_smtpd_milters = $smtpd_milters",
            "milter_default_action = tempfail", *lines]  # fmt: skip
    master = [f"-o smtpd_milters={where}", "-o milter_default_action=tempfail",
              *(f"-o {{ {line} }}" for line in lines)]  # fmt: skip
    return [
        ("Postfix, main.cf, for all mail", main),
        ("Postfix, master.cf, for one service instead, below its line",
         [f"  {line}" for line in master]),
    ]  # fmt: skip


def _sendmail(spec: str, name: str, lines: list[str]) -> list[tuple[str, list[str]]]:
    kind, at, host = _parts(spec)
    where = f"unix:{at}" if kind == "unix" else f"{kind}:{at}@{host}"
    equates = f"S={where}, F=T, T=C:10s;S:10s;R:10s;E:5m"
    return [("Sendmail, sendmail.mc", [f"INPUT_MAIL_FILTER(`{name}', `{equates}')dnl", *lines])]


_FILES = {macros.POSTFIX.mta: _postfix, macros.SENDMAIL.mta: _sendmail}

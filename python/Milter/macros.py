"""The macros of Postfix and Sendmail, as data: which each sends at which stage, when they have a
value, and the setting that adds one. Protocol sheet 4.3; tests/mta/test_macros.py asks both MTAs.

A stage is what a list of macros belongs to: the MTA sends it before the step of that name. A
filter sees those of all stages so far, so a macro that was sent at MAIL can be read at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = [
    "CALLBACK",
    "LAST_STAGE",
    "MTAS",
    "POSTFIX",
    "SENDMAIL",
    "STAGES",
    "Lack",
    "Macro",
    "MtaMacros",
    "mta_of",
    "written",
]

#: The stages that have macros for filters, in the order of a message.
STAGES: Final = ("connect", "helo", "mail", "rcpt", "data", "eoh", "eom")

#: Callback -> the last stage whose macros it can see. Those that may come at any time are not here.
LAST_STAGE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "connect": "connect",
        "hello": "helo",
        "envfrom": "mail",
        "envrcpt": "rcpt",
        "data": "data",
        "header": "data",  # what Postfix sends before each header is not for filters
        "eoh": "eoh",
        "body": "eoh",
        "eom": "eom",
    }
)

#: Stage -> the callback that is first to see its macros; @symlist on it asks for more.
CALLBACK: Final[Mapping[str, str]] = MappingProxyType(
    {stage: name for name, stage in tuple(LAST_STAGE.items())[::-1]}
)


class Lack(Enum):
    """Why a callback may not get a macro's value, as far as the MTA's defaults tell."""

    NOTHING = "it gets it, where there is one"
    UNKNOWN = "the MTA has no such macro"
    LATER = "it has no value yet"
    UNSENT = "the MTA sends it only if told to"


class Macro(NamedTuple):
    """A macro that an MTA knows."""

    #: The first stage at which it has a value; a list of an earlier one cannot bring it.
    since: str
    #: What must be so that it has one ("the client has logged in"); empty for always.
    when: str = ""


@dataclass(frozen=True)
class MtaMacros:
    """The macros of one kind of MTA.

    mta: its name as people write it. sent: stage -> what it sends there by default, in order; no
    packet at all for a stage that is missing. settings: stage -> the setting that holds the list.
    known: macro -> when it has a value. file: its configuration. line: a line of it, of a setting
    and its list. between: what separates the names there.
    """

    mta: str
    sent: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, str]
    known: Mapping[str, Macro]
    file: str
    line: str
    between: str

    def setting(self, stage: str, more: Iterable[str] = ()) -> str:
        """The line of its configuration that lets it send, at a stage, what it sends there by
        default and `more`: such a list takes the default one's place. Raises KeyError for a
        stage without a setting."""
        names = dict.fromkeys((*self.sent.get(stage, ()), *more))
        return self.line.format(self.settings[stage], self.between.join(names)).rstrip()

    def lack(
        self, name: str, callback: str, asked: Mapping[str, Iterable[str]] = MappingProxyType({})
    ) -> Lack:
        """Why a callback may not get a macro. name: as MTAs write it. asked: stage -> what the
        filter asks for there itself; what MTAs send by default comes in any case (@symlist)."""
        macro = self.known.get(name)
        if macro is None:
            return Lack.UNKNOWN
        last = STAGES.index(LAST_STAGE.get(callback, STAGES[-1]))
        if STAGES.index(macro.since) > last:
            return Lack.LATER
        lists = (
            names.get(stage, ()) for stage in STAGES[: last + 1] for names in (self.sent, asked)
        )
        return Lack.NOTHING if any(name in names for names in lists) else Lack.UNSENT


def written(name: str) -> str:
    """A macro's name as MTAs write it: "i", "{mail_addr}"; filters may write "{i}" as well."""
    return name[1:-1] if len(name) == 3 and name[0] + name[2] == "{}" else name


def mta_of(value: Callable[[str], str | None]) -> MtaMacros | None:
    """The MTA that a filter talks to, by the macros that it sends by default; None if these do not
    tell. value: returns a macro's, as getsymval does."""
    version = value("v") or ""
    if version.startswith("Postfix"):
        return POSTFIX
    if version[:1].isdigit() or value("{if_name}") is not None:
        return SENDMAIL  # which does not send its version unless told to
    return POSTFIX if value("{daemon_addr}") is not None else None


_TLS = "the session is encrypted"
_CERTIFICATE = "the client has shown a certificate"
_LOGIN = "the client has logged in"
_SMTP = "the message came by SMTP"

_SESSION = Macro("connect")
_MESSAGE = Macro("mail")
_EITHER = {
    **dict.fromkeys(("j", "v", "_", "{client_addr}", "{client_name}", "{client_port}",
                     "{client_ptr}", "{client_resolve}", "{client_connections}", "{daemon_addr}",
                     "{daemon_name}", "{daemon_port}"), _SESSION),
    **dict.fromkeys(("{tls_version}", "{cipher}", "{cipher_bits}"), Macro("helo", _TLS)),
    **dict.fromkeys(("{cert_subject}", "{cert_issuer}"), Macro("helo", _CERTIFICATE)),
    **dict.fromkeys(("{auth_type}", "{auth_authen}"), Macro("mail", _LOGIN)),
    "{auth_author}": Macro("mail", "the client has logged in and named an author"),
    "{mail_addr}": _MESSAGE,
    "{rcpt_addr}": Macro("rcpt"),
}  # fmt: skip
_TLS_MACROS = ("{tls_version}", "{cipher}", "{cipher_bits}", "{cert_subject}", "{cert_issuer}")

#: Postfix 3.7; its settings hold for newer ones.
POSTFIX: Final = MtaMacros(
    mta="Postfix",
    sent=MappingProxyType(
        {
            "connect": ("j", "{daemon_name}", "{daemon_addr}", "v", "_"),
            "helo": _TLS_MACROS,
            "mail": ("i", "{auth_type}", "{auth_authen}", "{auth_author}", "{mail_addr}",
                     "{mail_host}", "{mail_mailer}"),
            "rcpt": ("i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"),
            "data": ("i",),
            "eoh": ("i",),
            "eom": ("i",),
            "unknown": (),
        }
    ),
    settings=MappingProxyType(
        {
            "connect": "milter_connect_macros",
            "helo": "milter_helo_macros",
            "mail": "milter_mail_macros",
            "rcpt": "milter_rcpt_macros",
            "data": "milter_data_macros",
            "eoh": "milter_end_of_header_macros",
            "eom": "milter_end_of_data_macros",
            "unknown": "milter_unknown_command_macros",
        }
    ),
    known=MappingProxyType(
        {
            **_EITHER,
            # There is no queue file, and no id, before a recipient was accepted.
            "i": Macro("data"),
            **dict.fromkeys(("{mail_host}", "{mail_mailer}"), Macro("mail", _SMTP)),
            **dict.fromkeys(("{rcpt_host}", "{rcpt_mailer}"), Macro("rcpt", _SMTP)),
        }
    ),
    file="main.cf",
    line="{} = {}",
    between=" ",
)  # fmt: skip

#: Sendmail 8.17.
SENDMAIL: Final = MtaMacros(
    mta="Sendmail",
    sent=MappingProxyType(
        {
            "connect": ("j", "_", "{daemon_name}", "{if_name}", "{if_addr}"),
            "helo": _TLS_MACROS,
            "mail": ("i", "{auth_type}", "{auth_authen}", "{auth_ssf}", "{auth_author}",
                     "{mail_mailer}", "{mail_host}", "{mail_addr}"),
            "rcpt": ("{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}"),
            "eom": ("{msg_id}",),
        }
    ),
    settings=MappingProxyType(
        {
            "connect": "confMILTER_MACROS_CONNECT",
            "helo": "confMILTER_MACROS_HELO",
            "mail": "confMILTER_MACROS_ENVFROM",
            "rcpt": "confMILTER_MACROS_ENVRCPT",
            "data": "confMILTER_MACROS_DATA",
            "eoh": "confMILTER_MACROS_EOH",
            "eom": "confMILTER_MACROS_EOM",
        }
    ),
    known=MappingProxyType(
        {
            **_EITHER,
            "i": _MESSAGE,
            **dict.fromkeys(("{if_name}", "{client_rate}", "{total_rate}", "{daemon_family}",
                             "{daemon_flags}", "{daemon_info}", "{load_avg}", "{opMode}",
                             "{deliveryMode}", "{time}", "b", "d", "t", "w", "m", "k", "n"),
                            _SESSION),
            **dict.fromkeys(("{if_addr}", "{if_family}"),
                            Macro("connect", "the client is not on this machine")),
            **dict.fromkeys(("{verify}", "{alg_bits}"), Macro("helo", _TLS)),
            **dict.fromkeys(("{cn_subject}", "{cn_issuer}", "{cert_md5}", "{cert_fp}"),
                            Macro("helo", _CERTIFICATE)),
            "{auth_ssf}": Macro("mail", "the client has logged in with a security layer"),
            **dict.fromkeys(("{mail_host}", "{mail_mailer}", "{nrcpts}", "{ntries}", "s", "r",
                             "f"), _MESSAGE),
            "{bodytype}": Macro("mail", "the client gave BODY="),
            "{envid}": Macro("mail", "the client gave ENVID="),
            **dict.fromkeys(("{rcpt_host}", "{rcpt_mailer}"), Macro("rcpt")),
            "{msg_id}": Macro("eoh"),
            "{msg_size}": Macro("eoh"),
        }
    ),
    file="sendmail.mc",
    line="define(`{}', `{}')dnl",
    between=", ",
)  # fmt: skip

#: The MTAs by their names on the command line.
MTAS: Final[Mapping[str, MtaMacros]] = MappingProxyType({"postfix": POSTFIX, "sendmail": SENDMAIL})

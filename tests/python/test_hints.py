"""The line that is logged when a filter reads a macro that its MTA has to be told to send."""

import logging
from dataclasses import replace

import Milter
import pytest
from Milter.testing import MTA, POSTFIX, SENDMAIL

NOBODY = replace(POSTFIX, software="", macros={})
MACROS = {"sendmail": {"if_name": "x"}}
SEND = (b"Subject: x\n\ny\n", "a@b", ["c@d"])


@pytest.fixture
def hints(tmp_path, caplog):
    """Serves a class of which one callback reads a macro, sends two messages on each of two
    connections, and returns what was logged."""

    def run(callback, name, profile, *, asks=None, step="connect"):
        def read(self, *_args):
            self.getsymval(name)
            self.getsymval(name)
            return Milter.CONTINUE

        read.__name__ = callback
        methods = {callback: read}
        if asks:

            def asking(_self, *_args):
                return Milter.CONTINUE

            asking.__name__ = step
            methods[step] = Milter.symlist(*asks)(methods.get(step, asking))
        klass = type("Filter", (Milter.Base,), methods)
        with (
            caplog.at_level(logging.INFO, "Milter"),
            Milter.Server(klass, f"unix:{tmp_path}/socket") as server,
        ):
            for _ in range(2):
                more = MACROS.get(profile.name, {})
                with MTA(server.address, profile=profile, macros=more) as mta:
                    mta.send(*SEND)
                    mta.send(*SEND)
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if not line.startswith("Filter: ")]  # the server's own

    return run


ASK = 'let the filter ask for it, by @Milter.symlist("{client_port}") on connect'


@pytest.mark.parametrize(
    ("callback", "name", "profile", "expected"),
    [
        ("connect", "{client_port}", POSTFIX, f"Postfix has to be told to send it: {ASK}, or by "
         "main.cf: milter_connect_macros = j {daemon_name} {daemon_addr} v _ {client_port}"),
        ("eom", "{client_port}", SENDMAIL, f"Sendmail has to be told to send it: {ASK}, or by "
         "sendmail.mc: define(`confMILTER_MACROS_CONNECT', `j, _, {daemon_name}, {if_name}, "
         "{if_addr}, {client_port}')dnl"),
        ("envfrom", "i", POSTFIX, "Postfix has it from data on"),
        ("hello", "{i}", POSTFIX, "Postfix has it from data on"),
        ("connect", "client_port", POSTFIX, "Postfix has no such macro: write {client_port}"),
        ("header", "{nrcpts}", POSTFIX, "Postfix has no such macro"),
        ("body", "{nrcpts}", NOBODY, "Postfix has no such macro; Sendmail has to be told to send "
         'it: let the filter ask for it, by @Milter.symlist("{nrcpts}") on envfrom, or by '
         "sendmail.mc: define(`confMILTER_MACROS_ENVFROM', `i, {auth_type}, {auth_authen}, "
         "{auth_ssf}, {auth_author}, {mail_mailer}, {mail_host}, {mail_addr}, {nrcpts}')dnl"),
    ],
)  # fmt: skip
def test_told_once(hints, callback, name, profile, expected):
    assert hints(callback, name, profile) == [
        f"macro {name} has no value in {callback}: {expected}"
    ]


@pytest.mark.parametrize(
    ("callback", "name", "profile"),
    [
        ("connect", "j", POSTFIX),  # it has a value
        ("envfrom", "{auth_authen}", POSTFIX),  # nobody has logged in
        ("eom", "{tls_version}", SENDMAIL),  # the session is not encrypted
        ("eom", "{if_addr}", SENDMAIL),
        ("eom", "{verify}", NOBODY),  # one of them may have sent it
        ("close", "{client_port}", POSTFIX),  # any stage may be the last
    ],
)
def test_not_told(hints, callback, name, profile):
    assert hints(callback, name, profile) == []


def test_a_list_of_the_filter_counts(hints):
    """The MTA's own setting would have no effect."""
    assert hints("eom", "{client_port}", POSTFIX, asks=["{client_ptr}"]) == [
        f"macro {{client_port}} has no value in eom: Postfix is not asked for it: {ASK}"
    ]


def test_each_callback_and_class(hints):
    """It is told again where another class reads it."""
    first = hints("connect", "{client_port}", POSTFIX)
    assert len(hints("connect", "{client_port}", POSTFIX)) == 2 * len(first) == 2

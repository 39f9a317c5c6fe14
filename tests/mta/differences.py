"""What one test expects of each MTA where they differ: one table, by topic and MTA.

The comments name the row of section 8 of docs/protocol.md that says so; where there is none, the
difference is the MTA's own and has nothing to do with filters.
"""

from typing import Any

from mta import HOSTNAME, Mta, Reply

# The filter's steps in order, and the SMTP command whose reply tells the client of a refusal
# there. Both MTAs answer HELO in any case and refuse later.
TOLD_AT = {
    "connect": "mail",
    "hello": "mail",
    "envfrom": "mail",
    "envrcpt": "rcpt",
    "data": "data",
    "header": ".",
    "eoh": ".",
    "body": ".",
    "eom": ".",
}
STEPS = list(TOLD_AT)

# Sendmail writes the address before the first line of a refusal.
SENDER, RCPT = "<sender@example.test>... ", "<one@local.test>... "

TABLE: dict[str, dict[str, Any]] = {
    # Rows "`r` text" and "`t` text", by step; "" is for all others.
    "REJECT": {
        "postfix": {"": Reply(550, "5.7.1 Command rejected")},
        "sendmail": {
            "hello": Reply(550, "5.0.0 Command rejected"),
            "envfrom": Reply(550, f"5.7.1 {SENDER}Command rejected"),
            "envrcpt": Reply(550, f"5.7.1 {RCPT}Command rejected"),
            "data": Reply(550, "5.7.1 Command rejected"),
            "": Reply(554, "5.7.1 Command rejected"),
        },
    },
    "TEMPFAIL": {
        "postfix": {"": Reply(451, "4.7.1 Service unavailable - try again later")},
        "sendmail": {"": Reply(451, "4.3.2 Please try again later")},
    },
    # What stands before the first line of a text of the filter's own, by step.
    "before the text": {"postfix": {}, "sendmail": {"envfrom": SENDER, "envrcpt": RCPT}},
    # Row "`y` at connect": the greeting of REJECT; and whether TEMPFAIL's text is used.
    "greeting": {
        "postfix": Reply(554, f"{HOSTNAME} ESMTP not accepting connections"),
        "sendmail": Reply(554, f"{HOSTNAME} ESMTP not accepting messages"),
    },
    "text at connect": {"postfix": True, "sendmail": False},
    # DATA after the only recipient was refused.
    "no recipients": {
        "postfix": Reply(554, "5.5.1 Error: no valid recipients"),
        "sendmail": Reply(503, "5.0.0 Need RCPT (recipient)"),
    },
    # Row "Failure default": what the service "reject" does without its filter; None is REJECT's.
    "without": {"postfix": Reply(550, "5.5.0 Service unavailable"), "sendmail": None},
    # Row "insheader index": 1 is below the own Received, then how many to the next user's header.
    # Sendmail also counts the headers that it adds only where they are missing.
    "below Subject": {"postfix": 2, "sendmail": 9},
    # Row "chgheader index": after a deletion Postfix counts the rest anew.
    "index after a deletion": {
        "postfix": ["Subject: test", "X-Two: left"],
        "sendmail": ["Subject: test", "X-Two: left", "X-Two: second"],
    },
    # Sheet 4.3 and rows "`A`" and "Body", for MESSAGE.
    "packets": {
        "postfix": [
            "O",
            "D C j {daemon_name} {daemon_addr} v _ {client_addr} {client_name}",
            "C",
            "D H",
            "H",
            "D M {mail_addr} {mail_host} {mail_mailer}",
            "M",
            "D R {rcpt_addr} {rcpt_host} {rcpt_mailer}",
            "R",
            *("D T i", "T"),
            *("D L i", "L") * 3,
            *("D N i", "N", "D B i", "B", "D E i", "E"),
            *("A", "A", "Q"),
        ],
        "sendmail": [
            "O",
            "D C j _ {daemon_name} {if_name}",
            "C",
            "D H",
            "H",
            "D M i {mail_mailer} {mail_host} {mail_addr}",
            "M",
            "D R {rcpt_mailer} {rcpt_host} {rcpt_addr}",
            "R",
            *("T", "L", "L", "L", "N", "B"),
            "D E {msg_id}",
            *("E", "Q"),
        ],
    },
    # What a replaced body without a line end at its end is in a mailbox, and in a queue.
    "no line end": {"postfix": b"no line end\n", "sendmail": b"no line end"},
    # A sender without brackets.
    "bare sender": {"postfix": "<bare@a.test>", "sendmail": "bare@a.test"},
    # The name of the client 127.0.0.1: Postfix is told not to look it up.
    "client": {"postfix": "[127.0.0.1]", "sendmail": "localhost"},
    # Sheet 4.3, default macros, by step; those of later steps have the earlier ones too.
    "connect macros": {
        "postfix": {
            "_": "unknown [127.0.0.1]",
            "{daemon_name}": HOSTNAME,
            "{daemon_addr}": "127.0.0.1",
            "{client_addr}": "127.0.0.1",
            "{client_name}": "unknown",
        },
        "sendmail": {"_": "localhost [127.0.0.1]", "{daemon_name}": "unix"},
    },
    "mail macros": {
        "postfix": {"{mail_addr}": "sender@example.test", "{mail_mailer}": "error"},
        "sendmail": {
            "{mail_addr}": "sender@example.test",
            "{mail_mailer}": "esmtp",
            "{mail_host}": "example.test.",
        },
    },
    "rcpt macros": {
        "postfix": {
            "{rcpt_addr}": "one@local.test",
            "{rcpt_mailer}": "virtual",
            "{rcpt_host}": "local.test",
        },
        "sendmail": {
            "{rcpt_addr}": "one@local.test",
            "{rcpt_mailer}": "esmtp",
            "{rcpt_host}": "local.test.",
        },
    },
    # Postfix has a queue id only after the first recipient.
    "id at": {"postfix": "envrcpt 2", "sendmail": "envfrom"},
    # Row "`U` line": Postfix sends the first word.
    "unknown": {"postfix": ["FOO"], "sendmail": ["FOO bar"]},
    # Sheet 2.7, "list for EOM" and "empty list": Sendmail uses that for EOM only with one for EOH.
    "list for EOM alone": {"postfix": "{client_port}", "sendmail": ""},
    "list for EOM and EOH": {"postfix": "i {client_port}", "sendmail": "i {client_port}"},
    "list for EOH alone": {"postfix": "{client_port}", "sendmail": "{client_port}"},
    "list for EOM and an empty one for EOH": {
        "postfix": "{client_port}",
        "sendmail": "{client_port}",
    },
    "list for connect": {"postfix": "{client_port}", "sendmail": "{client_port}"},
    # Row "`d` at connect/helo".
    "seen after DISCARD at connect": {"postfix": "eom", "sendmail": "connect"},
    # The end of the reply to a recipient elsewhere.
    "elsewhere": {"postfix": "Relay access denied", "sendmail": "User unknown"},
}


def of(mta: Mta, topic: str) -> Any:
    """A row's entry for an MTA."""
    return TABLE[topic][mta.name]


def refusal(mta: Mta, verdict: str, step: str) -> Reply:
    """The client's reply to a verdict without a text."""
    by_step = of(mta, verdict)
    reply = by_step.get(step, by_step[""])
    assert isinstance(reply, Reply)
    return reply


def refusal_with(mta: Mta, reply: Reply, step: str) -> Reply:
    """The client's reply to a verdict with a text of the filter's own."""
    status, _, text = reply.text.partition(" ")
    return Reply(reply.code, f"{status} {of(mta, 'before the text').get(step, '')}{text}")

"""The constants of `milter`, which are numbers and cannot carry docstrings: what each means."""

import milter

_STEPS = {
    "CONN": "connect", "HELO": "helo", "MAIL": "envfrom", "RCPT": "envrcpt", "DATA": "data",
    "UNKN": "unknown", "EOH": "eoh", "BODY": "body", "HDR": "header",
}  # fmt: skip
_OTHERS = {"CONNECT": "connect", "UNKNOWN": "unknown", "HDRS": "header"}
_STAGES = {
    "CONNECT": "connect", "HELO": "helo", "ENVFROM": "envfrom", "ENVRCPT": "envrcpt",
    "DATA": "data", "EOM": "eom", "EOH": "eoh",
}  # fmt: skip

_GROUPS = {
    "What callbacks return": {
        "CONTINUE": "Go on.",
        "REJECT": "Refuse for good: this recipient in envrcpt; the client in connect and helo; "
        "else the message.",
        "TEMPFAIL": "Refuse for now; of the same things.",
        "ACCEPT": "Take it, and ask this filter no more about this message, in connect and helo "
        "about this connection.",
        "DISCARD": "Take the message, tell the client so, and drop it.",
        "SKIP": "In body: send no more chunks of this message. Where P_SKIP was negotiated.",
        "NOREPLY": "No answer, in a step whose no-reply bit was negotiated.",
        "ALL_OPTS": "In negotiate: all that the MTA offers.",
    },
    "Actions: what a filter may do": {
        "ADDHDRS": "addheader.",
        "CHGHDRS": "chgheader.",
        "CHGBODY": "replacebody.",
        "MODBODY": "Another name for CHGBODY.",
        "ADDRCPT": "addrcpt.",
        "ADDRCPT_PAR": "addrcpt with ESMTP parameters.",
        "DELRCPT": "delrcpt.",
        "CHGFROM": "chgfrom.",
        "QUARANTINE": "quarantine.",
        "SETSYMLIST": "setsymlist.",
        "V1_ACTS": "All actions of the protocol's version 1.",
        "V2_ACTS": "All actions of its version 2.",
        "CURR_ACTS": "All that there are.",
    },
    "Protocol options": {
        **{f"P_NR_{end}": f"The MTA awaits no reply to {step}." for end, step in _STEPS.items()},
        **{
            f"P_NO{end}": f"The MTA leaves {step} out."
            for end, step in {**_STEPS, **_OTHERS}.items()
            if hasattr(milter, f"P_NO{end}")
        },
        "P_SKIP": "SKIP is known.",
        "P_RCPT_REJ": "Recipients that the MTA has rejected itself are sent too.",
        "P_HDR_LEADSPC": "Header values keep the space after the colon.",
    },
    "Stages of macros, for setsymlist": {
        f"M_{end}": f"Before {step}." for end, step in _STAGES.items()
    },
    "Others": {
        "SUCCESS": "What functions of libmilter's API return.",
        "FAILURE": "What they return when they fail.",
        "VERSION": "The version of libmilter's API, as getversion tells it, in one number.",
    },
}


def constants() -> str:
    """The part of a page that lists them."""
    parts = []
    for title, group in _GROUPS.items():
        parts += [f"### {title}\n\n```{{eval-rst}}"]
        for name, meaning in group.items():
            value = getattr(milter, name)
            shown = value if not name.startswith(("P_", "V", "CURR")) else f"{value:#x}"
            parts.append(f".. data:: {name}\n   :value: {shown}\n\n   {meaning}\n")
        parts.append("```\n")
    return "\n".join(parts)

"""A filter that asks for lists of macros, stage by stage as it is told, and for nothing else.

Usage: symlists.py SOCKET FOLDER STAGE=MACROS... with the stages' names from milter.M_*. Tells in a
header which of the macros it was told about it can see at the end of the message.
"""

import sys

import milter

LISTS = dict(each.split("=", 1) for each in sys.argv[3:])


def negotiate(ctx, options):  # type: ignore[no-untyped-def]
    for stage, macros in LISTS.items():
        ctx.setsymlist(getattr(milter, f"M_{stage}"), macros)
    return milter.ALL_OPTS


def eoh(ctx):  # type: ignore[no-untyped-def]
    return milter.CONTINUE


def eom(ctx):  # type: ignore[no-untyped-def]
    names = sorted({name for macros in LISTS.values() for name in macros.split()})
    ctx.addheader("X-Macros", " ".join(name for name in names if ctx.getsymval(name)))
    return milter.CONTINUE


milter.set_flags(milter.ADDHDRS)
milter.set_eoh_callback(eoh)
milter.set_eom_callback(eom)
milter.register("symlists", negotiate=negotiate)
milter.setconn(sys.argv[1])
milter.opensocket(True)
milter.main()

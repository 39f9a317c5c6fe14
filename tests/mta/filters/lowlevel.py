"""A filter on the functions of the `milter` module alone, without classes of `Milter`.

Usage: lowlevel.py SOCKET FOLDER. Adds a header that tells the whole session.
"""

import sys

import milter


def connect(ctx, hostname, family, hostaddr):  # type: ignore[no-untyped-def]
    ctx.setpriv([f"connect {hostname} {family} {hostaddr[0]}"])
    return milter.CONTINUE


def helo(ctx, name):  # type: ignore[no-untyped-def]
    ctx.getpriv().append(f"helo {name}")
    return milter.CONTINUE


def envfrom(ctx, *args):  # type: ignore[no-untyped-def]
    ctx.getpriv().append(f"envfrom {args}")
    return milter.CONTINUE


def envrcpt(ctx, *args):  # type: ignore[no-untyped-def]
    ctx.getpriv().append(f"envrcpt {args}")
    if args[0] == b"<refused@local.test>":
        ctx.setreply("550", "5.1.1", "not this one")
        return milter.REJECT
    return milter.CONTINUE


def header(ctx, name, value):  # type: ignore[no-untyped-def]
    ctx.getpriv().append(f"header {name} {value}")
    return milter.CONTINUE


def eoh(ctx):  # type: ignore[no-untyped-def]
    ctx.getpriv().append("eoh")
    return milter.CONTINUE


def body(ctx, chunk):  # type: ignore[no-untyped-def]
    ctx.getpriv().append(f"body {chunk}")
    return milter.CONTINUE


def eom(ctx):  # type: ignore[no-untyped-def]
    ctx.addheader("X-Session", "\n\t".join(ctx.getpriv()))
    ctx.replacebody(b"low level\r\n")
    return milter.ACCEPT


milter.set_connect_callback(connect)
milter.set_helo_callback(helo)
milter.set_envfrom_callback(envfrom)
milter.set_envrcpt_callback(envrcpt)
milter.set_header_callback(header)
milter.set_eoh_callback(eoh)
milter.set_body_callback(body)
milter.set_eom_callback(eom)
milter.set_flags(milter.ADDHDRS | milter.CHGBODY)
milter.register("lowlevel")
milter.setconn(sys.argv[1])
milter.opensocket(True)
milter.settimeout(60)
milter.main()

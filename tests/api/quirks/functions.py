"""Functions of a module given to the low level, each with the context; the socket opened early."""
import os, sys, milter
from milter import *

sessions = {}


def connect(ctx, hostname, family, hostaddr):
    ctx.setpriv({"host": hostname, "rcpts": []})
    print("connect", hostname, family, hostaddr, ctx.getsymval("j"))
    return CONTINUE


def helo(ctx, name):
    ctx.getpriv()["helo"] = name
    print("helo", name)
    return milter.CONTINUE


def envfrom(ctx, f, *params):
    p = ctx.getpriv()
    p["rcpts"] = []
    p["from"] = f
    print("from", f, params)
    return CONTINUE


def envrcpt(ctx, to, *params):
    if to.startswith(b"<nobody"):
        ctx.setreply("550", "5.1.1", "no such user")
        return REJECT
    ctx.getpriv()["rcpts"].append(to)
    return CONTINUE


def header(ctx, name, value):
    print("header", name, value)
    return CONTINUE


def eoh(ctx):
    return CONTINUE


def body(ctx, chunk):
    print("body", len(chunk))
    return CONTINUE


def eom(ctx):
    p = ctx.getpriv()
    for action, args in [
        (ctx.addheader, ("X-Low", "%d" % len(p["rcpts"]))),
        (ctx.addheader, ("X-First", "1", 0)),
        (ctx.chgheader, ("Subject", 1, "low")),
        (ctx.chgheader, ("From", 1, None)),
        (ctx.addrcpt, ("<low@example.org>",)),
        (ctx.delrcpt, ("<bob@example.org>",)),
        (ctx.replacebody, (b"low\r\n",)),
    ]:
        try:
            action(*args)
        except milter.error as e:
            print(action.__name__, type(e).__name__)
    print("eom", ctx.getsymval("i"), ctx.getsymval("{mail_addr}"), ctx.getsymval("nothing"))
    return CONTINUE


def abort(ctx):
    return CONTINUE


def close(ctx):
    p = ctx.getpriv()
    print("close", sorted(p) if p else p, flush=True)
    ctx.setpriv(None)
    return CONTINUE


def data(ctx):
    print("data")
    return CONTINUE


def unknown(ctx, cmd):
    print("unknown", cmd)
    return CONTINUE


def negotiate(ctx, opts):
    print("negotiate", opts)
    opts[1] &= P_NOUNKNOWN | P_NR_EOH
    return CONTINUE


set_flags(ADDHDRS | CHGHDRS | ADDRCPT | DELRCPT | CHGBODY)
for each in (connect, helo, envfrom, envrcpt, header, eoh, body, eom, abort, close):
    getattr(milter, "set_%s_callback" % each.__name__)(each)
milter.set_exception_policy(milter.REJECT)
milter.register("functions", data=data, unknown=unknown, negotiate=negotiate)
milter.setconn(sys.argv[1])
milter.settimeout(300)
milter.setbacklog(5)
milter.setdbg(0)
milter.opensocket(True)
os.chmod(sys.argv[1].split(":")[1], 0o666)
print("opened", oct(os.stat(sys.argv[1].split(":")[1]).st_mode))
try:
    milter.main()
finally:
    print("over")

"""A filter of the soak test: functions given to the module `milter`.

Usage: lowlevel.py SOCKET
"""

import sys

import milter
from plan import Kept, act, options, see_header


def kept_of(ctx):
    """What is kept for a connection. Hostile peers may begin with any step."""
    if ctx.getpriv() is None:
        ctx.setpriv(Kept())
    return ctx.getpriv()


def negotiate(ctx, opts):
    opts[:2] = options(opts)
    return milter.CONTINUE


def connect(ctx, hostname, family, hostaddr):
    kept_of(ctx).read(hostname)
    return act(kept_of(ctx), "connect", ctx)


def helo(ctx, name):
    kept_of(ctx).read(name)
    return act(kept_of(ctx), "helo", ctx)


def envfrom(ctx, sender, *params):
    kept_of(ctx).begin()
    kept_of(ctx).read(sender)
    return act(kept_of(ctx), "mail", ctx)


def envrcpt(ctx, rcpt, *params):
    return act(kept_of(ctx), "rcpt", ctx)


def data(ctx):
    return act(kept_of(ctx), "data", ctx)


def header(ctx, name, value):
    see_header(kept_of(ctx), name, value)
    return act(kept_of(ctx), "header", ctx)


def eoh(ctx):
    return act(kept_of(ctx), "eoh", ctx)


def body(ctx, chunk):
    kept_of(ctx).see(chunk)
    return act(kept_of(ctx), "body", ctx)


def unknown(ctx, command):
    return milter.CONTINUE


def eom(ctx):
    return act(kept_of(ctx), "eom", ctx)


def abort(ctx):
    kept_of(ctx).begin()
    return milter.CONTINUE


def close(ctx):
    ctx.setpriv(None)
    return milter.CONTINUE


milter.set_flags(milter.CURR_ACTS)
milter.set_connect_callback(connect)
milter.set_helo_callback(helo)
milter.set_envfrom_callback(envfrom)
milter.set_envrcpt_callback(envrcpt)
milter.set_header_callback(header)
milter.set_eoh_callback(eoh)
milter.set_body_callback(body)
milter.set_eom_callback(eom)
milter.set_abort_callback(abort)
milter.set_close_callback(close)
milter.set_exception_policy(milter.TEMPFAIL)
milter.setconn(sys.argv[1])
milter.register("lowlevel", unknown=unknown, data=data, negotiate=negotiate)
milter.main()

"""A filter made of functions alone, on the module `milter`: what classes are made of.

It refuses clients that greet with our own name, and notes in each message how much came.
"""

import milter

OWN_NAMES = {"mail.example.org", "example.org"}


# Each function gets the context of its connection first. What a filter wants to remember of a
# connection is kept there: one object, which setpriv keeps and getpriv returns.


def connect(ctx, hostname, family, hostaddr):
    ctx.setpriv({})
    return milter.CONTINUE


def helo(ctx, name):
    if name.lower() in OWN_NAMES:
        ctx.setreply("550", "5.7.1", "That is our own name")
        return milter.REJECT
    return milter.CONTINUE


def envfrom(ctx, sender, *params):  # bytes, as they came
    ctx.getpriv().update(recipients=0, size=0)  # another message may have gone before
    return milter.CONTINUE


def envrcpt(ctx, recipient, *params):
    ctx.getpriv()["recipients"] += 1
    return milter.CONTINUE


def body(ctx, chunk):
    ctx.getpriv()["size"] += len(chunk)
    return milter.CONTINUE


def eom(ctx):
    seen = ctx.getpriv()
    ctx.addheader("X-Seen", f"{seen['recipients']} recipients, {seen['size']} bytes")
    return milter.CONTINUE


# Steps without a function are not asked for, and actions without a flag are not allowed.
milter.set_flags(milter.ADDHDRS)
milter.set_connect_callback(connect)
milter.set_helo_callback(helo)
milter.set_envfrom_callback(envfrom)
milter.set_envrcpt_callback(envrcpt)
milter.set_body_callback(body)
milter.set_eom_callback(eom)
milter.register("lowlevel")

if __name__ == "__main__":
    milter.setconn("inet:8894@127.0.0.1")
    milter.main()

"""The filter of every_step.py on the low-level functions of the module `milter`.

Runs on ours and on the older package. Usage: low_level.py SOCKET
"""

import sys

import Milter
import milter


class Connection:
    """What is kept for a connection."""

    all_octets = 0  # of connections that have ended
    octets = 0
    recipients = 0
    queue_id = None


def connect(ctx, hostname, family, hostaddr):
    connection = Connection()
    connection.client = hostname
    ctx.setpriv(connection)
    return milter.CONTINUE


def helo(ctx, name):
    ctx.getpriv().helo = name
    return milter.CONTINUE


def envfrom(ctx, sender, *params):
    connection = ctx.getpriv()
    connection.sender = sender
    connection.params = params
    connection.recipients = 0
    return milter.CONTINUE


def envrcpt(ctx, recipient, *params):
    ctx.getpriv().recipients += 1
    return milter.CONTINUE


def data(ctx):
    return milter.CONTINUE


def header(ctx, field, value):
    ctx.getpriv().octets += len(field) + len(value)
    return milter.CONTINUE


def eoh(ctx):
    return milter.CONTINUE


def body(ctx, chunk):
    ctx.getpriv().octets += len(chunk)
    return milter.CONTINUE


def unknown(ctx, command):
    return milter.CONTINUE


def eom(ctx):
    ctx.getpriv().queue_id = ctx.getsymval("i")
    return milter.CONTINUE


def abort(ctx):
    return milter.CONTINUE


def close(ctx):
    Connection.all_octets += ctx.getpriv().octets
    ctx.setpriv(None)
    return milter.CONTINUE


if __name__ == "__main__":
    print(Milter.__file__, milter.__file__, sep="\n", flush=True)
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
    milter.setconn(sys.argv[1])
    milter.register("low_level", unknown=unknown, data=data)
    milter.settimeout(600)
    milter.main()
    print(Connection.all_octets)

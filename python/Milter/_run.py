"""The process's one filter: runmilter, and callbacks for those who set them by hand."""

from __future__ import annotations

import sys
from typing import Any

import milter

from ._server import Server


def _factory() -> Any:
    """Make an object by `Milter.factory` as it is at this moment: programs set it late."""
    return sys.modules[__package__].factory()


def runmilter(
    name: str,
    socketname: str,
    timeout: int = 0,
    rmsock: bool = True,
    *,
    drain: int = 30,
    progress: float = 30,
    grace: int = 5,
) -> None:
    """Serve `Milter.factory` on a socket until Milter.stop() or a signal; returns None then.

    name: of the filter, for logs. socketname: see Server. timeout: seconds that an MTA may be
    silent, 0 for the default. rmsock: remove a socket file that nobody answers on. drain: seconds
    that open messages may take to finish after a stop. progress: after so many seconds of an eom
    callback that sends nothing, its MTA is told to wait on; 0 for never. grace: seconds that
    callbacks may take once all connections are ended; then they are left behind. Flags, exception
    policy and backlog are those of the module-level functions. In the main thread SIGTERM and
    SIGHUP stop and SIGINT aborts, where the program has set no handlers, from before the socket is
    opened; a second signal ends sooner. A socket that milter.opensocket() has opened is served; it
    must be the one of socketname.
    A Milter.stop() from before ends it as soon as it begins. May be called again. Raises
    milter.error if it cannot listen, or runs already, TypeError for a socketname that is not a str.
    """
    if not isinstance(socketname, str):  # often a setting that is missing
        kind = type(socketname).__name__
        raise TypeError(f"socketname must be a str such as 'unix:/run/filter/socket', not {kind}")
    flags, policy, default_timeout, backlog = milter._settings()
    server = Server(
        _factory,
        socketname,
        name=name,
        timeout=timeout if timeout > 0 else default_timeout,
        backlog=backlog,
        actions=flags,
        exception_policy=policy,
        drain=drain,
        progress=progress,
        grace=grace,
        remove_stale=rmsock,
    )
    server._serve(lambda begin: milter._run_as_main(server._server, begin, socketname))


def negotiate_callback(ctx: milter.Context, opts: list[int]) -> int:
    """Make the connection's object and let it negotiate; for milter.register(negotiate=...)."""
    obj = _factory()
    obj._setctx(ctx)
    result: int = obj.negotiate(opts)
    return result


def connect_callback(
    ctx: milter.Context,
    hostname: str,
    family: int,
    hostaddr: Any,
    nr_mask: int = milter.P_NR_CONN,  # noqa: ARG001 - programs may give it; nothing needs it
) -> int:
    """Call the object's connect, making the object first if there was no negotiation."""
    obj = ctx.getpriv()
    if obj is None:
        obj = _factory()
        obj._setctx(ctx)
    result: int = obj.connect(hostname, family, hostaddr)
    return result


def close_callback(ctx: milter.Context) -> int:
    """Call the object's close, and part it from the connection; see set_close_callback."""
    obj = ctx.getpriv()
    if obj is None:
        return milter.CONTINUE
    try:
        result: int = obj.close()
    finally:
        obj._setctx(None)
    return result

"""The classes that filters are made from: Base, and Milter, which logs.

One object is made for each connection of an MTA; its methods are the callbacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import milter

from ._decorators import MACRO_CALLBACKS, MARK, OPTIONAL_CALLBACKS, F, noreply, symlists
from ._hints import macro_missed
from .macros import LAST_STAGE, POSTFIX, SENDMAIL

#: Protocol options that a filter has to ask for on purpose.
_OFF_BY_DEFAULT = milter.P_RCPT_REJ | milter.P_HDR_LEADSPC
#: All options that exist; an MTA may offer bits that nobody knows.
_KNOWN = (
    milter.P_SKIP
    | _OFF_BY_DEFAULT
    | sum(no_reply | no_send for no_reply, no_send in OPTIONAL_CALLBACKS.values())
)

#: Stage -> macros that Sendmail or Postfix send there by default. A list that a filter sends takes
#: their place, so it must hold them.
_USUAL_MACROS = {
    MACRO_CALLBACKS[name]: tuple(
        dict.fromkeys(macro for mta in (SENDMAIL, POSTFIX) for macro in mta.sent.get(stage, ()))
    )
    for name, stage in LAST_STAGE.items()
    if name in MACRO_CALLBACKS
}

#: MTAs take no more macros in one list.
_MOST_MACROS = 50

_PERCENT_RUNS = re.compile("%+")

_ACTION_NAMES = {
    milter.ADDHDRS: "ADDHDRS",
    milter.CHGHDRS: "CHGHDRS",
    milter.MODBODY: "MODBODY",
    milter.ADDRCPT: "ADDRCPT",
    milter.ADDRCPT_PAR: "ADDRCPT_PAR",
    milter.DELRCPT: "DELRCPT",
    milter.CHGFROM: "CHGFROM",
    milter.QUARANTINE: "QUARANTINE",
    milter.SETSYMLIST: "SETSYMLIST",
}


def macro_lists(methods: object) -> dict[int, list[str]]:
    """Return the lists that are sent for what methods ask for by @symlist: by stage, their names
    and the usual ones."""
    wanted = {MACRO_CALLBACKS[name]: names for name, names in symlists(methods).items()}
    if milter.M_EOM in wanted:
        # Sendmail uses the list for EOM only where it has one for EOH.
        wanted.setdefault(milter.M_EOH, ())
    lists = {}
    for stage, names in wanted.items():
        usual = [name for name in _USUAL_MACROS[stage] if name not in names]
        room = max(_MOST_MACROS - len(names), 0)
        lists[stage] = [*names, *usual[:room]]
    return lists


class DisabledAction(RuntimeError):
    """An action was called that is not in the set negotiated with the MTA; its text names it."""

    __module__ = "Milter"  # as logs should name it


def _no_callback(name: str) -> Callable[[F], F]:
    """Mark one of Base's own callbacks: unless overridden, the MTA does not send its step."""

    def mark(func: F) -> F:
        setattr(func, MARK, OPTIONAL_CALLBACKS[name][1])
        return func

    return mark


def _marks_of(klass: type, name: str) -> int:
    """Return the bits that a class's callback is marked with; 0 for an overridden one."""
    bytes_name = f"{name}_bytes"
    func = getattr(klass, name, None)
    own_bytes = getattr(klass, bytes_name, None)
    if own_bytes is not None and own_bytes is not getattr(Base, bytes_name, None):
        func = own_bytes
    marks: int = getattr(func, MARK, 0)
    return marks


class Base:
    """One connection of an MTA. Subclass it and override the callbacks that you need.

    Callbacks return CONTINUE, ACCEPT, REJECT, TEMPFAIL or DISCARD; body also SKIP. What is not
    overridden is not asked for, so it costs nothing. Actions work on the message of the
    connection; changes to it are possible in eom only.
    """

    _ctx: Any = None
    _actions: int = milter.CURR_ACTS
    _protocol: int = 0
    _enabled_protocols: int = 0

    def _setctx(self, ctx: Any) -> None:
        """Tie the object to its connection; called by the engine before any callback."""
        self._ctx = ctx
        self._actions = milter.CURR_ACTS
        self._protocol = 0
        if ctx is not None:
            ctx.setpriv(self)

    def log(self, *msg: Any) -> None:
        """Take a message of the filter's own; does nothing. Override it to log somewhere."""

    # ------------------------------------------------------------------------------ callbacks

    @_no_callback("connect")
    def connect(self, hostname: str, family: int, hostaddr: Any) -> int:
        """Called once for each SMTP client.

        hostname: as the MTA knows it, or "[address]". family: socket.AF_INET, AF_INET6, AF_UNIX,
        or 0 if unknown. hostaddr: (ip, port), (ip, port, flowinfo, scope_id), a path, or None.
        """
        return milter.CONTINUE

    @_no_callback("hello")
    def hello(self, hostname: str) -> int:
        """Called for HELO and EHLO with the name that the client gave; maybe more than once."""
        return milter.CONTINUE

    def envfrom_bytes(self, *b: bytes) -> int:
        """Called for MAIL FROM with bytes; calls envfrom with text as @decode chose it."""
        return self.envfrom(*_decoded(self.envfrom, b))

    @_no_callback("envfrom")
    def envfrom(self, f: str, *params: str) -> int:
        """Called for MAIL FROM: a message begins.

        f: the sender as typed, "<ann@example.org>", maybe "<>". params: its ESMTP parameters,
        "SIZE=1000"; see param2dict. REJECT and TEMPFAIL are for this message alone.
        """
        return milter.CONTINUE

    def envrcpt_bytes(self, *b: bytes) -> int:
        """Called for RCPT TO with bytes; calls envrcpt with text as @decode chose it."""
        return self.envrcpt(*_decoded(self.envrcpt, b))

    @_no_callback("envrcpt")
    def envrcpt(self, to: str, *params: str) -> int:
        """Called for each RCPT TO. REJECT and TEMPFAIL are for this recipient alone.

        to: the recipient as typed, "<bob@example.org>". params: its ESMTP parameters.
        """
        return milter.CONTINUE

    @_no_callback("data")
    def data(self) -> int:
        """Called for DATA, after all recipients."""
        return milter.CONTINUE

    def header_bytes(self, field: str, value: bytes) -> int:
        """Called for each header with its value as bytes; calls header as @decode chose it."""
        return self.header(field, *_decoded(self.header, (value,)))

    @_no_callback("header")
    def header(self, field: str, value: str) -> int:
        r"""Called for each header, in the order of the message.

        value: without the space after the colon; lines of a folded one are separated by `\n`.
        """
        return milter.CONTINUE

    @_no_callback("eoh")
    def eoh(self) -> int:
        """Called after the last header."""
        return milter.CONTINUE

    @_no_callback("body")
    def body(self, blk: bytes) -> int:
        """Called for each chunk of the body, up to 65535 bytes; lines end in CR LF."""
        return milter.CONTINUE

    @_no_callback("unknown")
    def unknown(self, cmd: str) -> int:
        """Called for an SMTP command that the MTA does not know."""
        return milter.CONTINUE

    def eom(self) -> int:
        """Called at the end of the message; the only callback that may change it."""
        return milter.CONTINUE

    def abort(self) -> int:
        """Called when a message ends without eom. The connection may bring further ones."""
        return milter.CONTINUE

    def close(self) -> int:
        """Called at the end of the connection."""
        return milter.CONTINUE

    # ---------------------------------------------------------------------------- negotiation

    @classmethod
    def protocol_mask(cls) -> int:
        """Return the protocol options (P_...) that this class does not want.

        Those are the no-reply bits of callbacks without @noreply, the do-not-send bits of
        callbacks that are there, and what enable_protocols did not enable.
        """
        mask = _OFF_BY_DEFAULT & ~cls._enabled_protocols
        for name, (no_reply, no_send) in OPTIONAL_CALLBACKS.items():
            mask |= (no_reply | no_send) & ~_marks_of(cls, name)
        return mask

    def negotiate(self, opts: list[int]) -> int:
        """Called first: choose actions and steps out of what the MTA offers.

        opts: [actions, protocol options, 0, 0], to be changed in place. Returns CONTINUE, or
        ALL_OPTS for all that is offered with opts ignored. Rarely overridden: it is worked out
        from the methods of the class and their decorators. Protocol sheet 2.5.
        """
        self._actions = opts[0]
        self._protocol = opts[1] = opts[1] & _KNOWN & ~type(self).protocol_mask()
        opts[2] = opts[3] = 0
        if self._actions & milter.SETSYMLIST:
            self._send_symlists()
        return milter.CONTINUE

    def _send_symlists(self) -> None:
        """Ask for the macros that @symlist names."""
        for stage, names in macro_lists(type(self)).items():
            self._ctx.setsymlist(stage, " ".join(names))

    # -------------------------------------------------------------------------------- actions

    def _need(self, action: int) -> None:
        if not self._actions & action:
            raise DisabledAction(_ACTION_NAMES[action])

    def getsymval(self, sym: str) -> str | None:
        """Return the value of a macro of the MTA, "i" or "{auth_authen}", or None. Any callback.

        For a macro that the MTA has to be told to send, the logger "Milter" says so, once.
        """
        value: str | None = self._ctx.getsymval(sym)
        if value is None:
            macro_missed(self, sym)
        return value

    def setreply(
        self, rcode: str, xcode: str | None = None, msg: str | None = None, *more: str
    ) -> None:
        """Set the SMTP reply for a REJECT (5yz) or TEMPFAIL (4yz) that follows. Any callback.

        rcode: "550". xcode: enhanced status code, "5.7.1". msg, more: lines of text, 32 at most,
        with `%` doubled. Raises ValueError for a single `%`, milter.error for what an MTA would
        refuse. Protocol sheet 5.3.
        """
        for line in (msg, *more):
            if _has_single_percent(line):
                raise ValueError(f"'%' must be doubled: {line!s}")
        return self._ctx.setreply(rcode, xcode, msg, *more)  # type: ignore[no-any-return]

    def setsymlist(self, stage: int, *names: str) -> None:
        """Ask for macros at a stage (M_CONNECT ...), in negotiate only, once a stage.

        Exactly these are then sent, so name the usual ones too; @symlist does that by itself.
        Raises DisabledAction if the MTA cannot, milter.error. Protocol sheet 2.6.
        """
        self._need(milter.SETSYMLIST)
        return self._ctx.setsymlist(stage, " ".join(names))  # type: ignore[no-any-return]

    def addheader(self, field: str, value: str, idx: int = -1) -> None:
        """Add a header, or insert it at idx among all headers (0: above the MTA's Received).

        eom only. Raises DisabledAction, milter.error. Protocol sheet 5.4.
        """
        self._need(milter.ADDHDRS)
        return self._ctx.addheader(field, value, idx)  # type: ignore[no-any-return]

    def chgheader(self, field: str, idx: int, value: str | None) -> None:
        """Change the idx-th header named field, counted from 1; None or "" deletes it.

        Change several of one name from the last to the first: MTAs count differently after a
        deletion. eom only. Raises DisabledAction, milter.error. Protocol sheet 5.4.
        """
        self._need(milter.CHGHDRS)
        return self._ctx.chgheader(field, idx, value)  # type: ignore[no-any-return]

    def addrcpt(self, rcpt: str, params: str | None = None) -> None:
        """Add a recipient, with ESMTP parameters if given.

        eom only. Raises DisabledAction, milter.error. Protocol sheet 5.4.
        """
        self._need(milter.ADDRCPT)
        if params:
            self._need(milter.ADDRCPT_PAR)
        return self._ctx.addrcpt(rcpt, params)  # type: ignore[no-any-return]

    def delrcpt(self, rcpt: str) -> None:
        """Remove a recipient, spelled as envrcpt got it.

        eom only. Raises DisabledAction, milter.error. Protocol sheet 5.4.
        """
        self._need(milter.DELRCPT)
        return self._ctx.delrcpt(rcpt)  # type: ignore[no-any-return]

    def replacebody(self, body: bytes | str) -> None:
        """Replace the body; further calls append to the new one.

        eom only. Raises DisabledAction, milter.error. Protocol sheet 5.4.
        """
        self._need(milter.MODBODY)
        return self._ctx.replacebody(body)  # type: ignore[no-any-return]

    def chgfrom(self, sender: str, params: str | None = None) -> None:
        """Change the envelope's sender, "<>" for none, with ESMTP parameters if given.

        eom only. Raises DisabledAction, milter.error. Protocol sheet 5.4.
        """
        self._need(milter.CHGFROM)
        return self._ctx.chgfrom(sender, params)  # type: ignore[no-any-return]

    def quarantine(self, reason: str) -> None:
        """Let the MTA hold the message; return CONTINUE or ACCEPT afterwards.

        eom only. Raises DisabledAction, milter.error. Protocol sheet 5.4.
        """
        self._need(milter.QUARANTINE)
        return self._ctx.quarantine(reason)  # type: ignore[no-any-return]

    def progress(self) -> None:
        """Tell the MTA to wait on: the filter is at work. eom only. Raises milter.error.

        A server does this by itself for a callback that runs long; see Server.
        """
        return self._ctx.progress()  # type: ignore[no-any-return]

    def mta_gone(self) -> bool:
        """Return whether the MTA has closed the connection, so that further work is in vain.

        Any callback; it may be asked often. The callback is not interrupted: return, and close
        follows.
        """
        gone: bool = self._ctx.mta_gone()
        return gone


def _has_single_percent(line: str | bytes | None) -> bool:
    text = line.decode("latin-1") if isinstance(line, bytes) else line or ""
    return any(len(run) % 2 for run in _PERCENT_RUNS.findall(text))


def _decoded(func: Any, values: tuple[bytes, ...]) -> tuple[Any, ...]:
    """Return text as @decode chose it for a callback."""
    strategy = getattr(func, "error_strategy", "surrogateescape")
    if strategy == "bytes":
        return values
    try:
        return tuple(value.decode("utf-8", strategy) for value in values)
    except UnicodeDecodeError:
        return values


class Milter(Base):
    """A Base that logs every event, without a reply of its own to any. Override what you need."""

    def log(self, *msg: Any) -> None:
        """Print a message, each item on a line."""
        print("Milter:", *msg, sep="\n", end="\n\n")

    @noreply
    def connect(self, hostname: str, family: int, hostaddr: Any) -> int:
        """Log the client."""
        self.log(f"connect from {hostname} at {hostaddr}")
        return milter.CONTINUE

    @noreply
    def hello(self, hostname: str) -> int:
        """Log the client's name."""
        self.log(f"hello from {hostname}")
        return milter.CONTINUE

    @noreply
    def envfrom(self, f: str, *params: str) -> int:
        """Log the sender."""
        self.log("mail from", f, params)
        return milter.CONTINUE

    @noreply
    def envrcpt(self, to: str, *params: str) -> int:
        """Log a recipient."""
        self.log("rcpt to", to, params)
        return milter.CONTINUE

    @noreply
    def header(self, field: str, value: str) -> int:
        """Log a header."""
        self.log(f"{field}: {value}")
        return milter.CONTINUE

    @noreply
    def eoh(self) -> int:
        """Log the end of the headers."""
        self.log("eoh")
        return milter.CONTINUE

    def eom(self) -> int:
        """Log the end of the message."""
        self.log("eom")
        return milter.CONTINUE

    def abort(self) -> int:
        """Log that the message was given up."""
        self.log("abort")
        return milter.CONTINUE

    def close(self) -> int:
        """Log the end of the connection."""
        self.log("close")
        return milter.CONTINUE

"""The header fields of a message, and their parameters: read as mail programs read them, changed
without a change to what else is in the field, and each change told to who asked for it."""

from __future__ import annotations

from collections.abc import Callable
from email.errors import HeaderParseError
from email.message import Message
from email.policy import Policy
from typing import Any

from mime import parameters, transfer

__all__ = ["HeaderFields"]


class HeaderFields(Message):
    """A message as far as its header goes. See MimeMessage."""

    _headers: list[tuple[str, Any]]  # the base class's

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.headerchange: Callable[[Any, str, Any], object] | None = None

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self._tell(name, value)

    def __delitem__(self, name: str) -> None:
        if name in self:
            self._tell(name, None)
            super().__delitem__(name)

    def replace_header(self, name: str, value: Any) -> None:
        """Replaces the first header of this name. Raises KeyError if there is none."""
        super().replace_header(name, value)
        self._tell(name, value)

    def _tell(self, name: str, value: Any) -> None:
        if self.headerchange:
            self.headerchange(self, name, value)

    def fields(self, header: str) -> list[str]:
        """The values of all headers of a name, with bytes above 127 as surrogates."""
        header = header.lower()
        return [str(value) for name, value in self._headers if name.lower() == header]

    def _parameters(self, header: str) -> list[parameters.Parameter]:
        """The parameters of a header, in the order they stand in; [] without the header."""
        for value in self.fields(header)[:1]:
            return parameters.decoded(parameters.parameters(value))
        return []

    def get_content_type(self) -> str:
        """The media type, in lower case, without comments and what else may stand beside it."""
        fields = self.fields("content-type")
        if not fields:
            return self.get_default_type()
        return parameters.kind_of(fields[0]) or "text/plain"

    def set_param(  # noqa: PLR0917 (the base class's)
        self,
        param: str,
        value: Any,
        header: str = "Content-Type",
        requote: bool = True,
        charset: str | None = None,
        language: str = "",
        replace: bool = False,
    ) -> None:
        """Sets a parameter of a header, as in `email`; what else is in the header stays."""
        form = Message()
        form["X"] = "x"
        plain = parameters.readable(value) if isinstance(value, str) else value
        form.set_param(param, plain, "X", requote, charset, language)
        self._set_value(header, param, form["X"].partition("; ")[2], replace)

    def del_param(self, param: str, header: str = "content-type", requote: bool = True) -> None:
        """Deletes a parameter of a header; what else is in the header stays."""
        if header in self:
            self._set_value(header, param, "")

    def _set_value(self, header: str, param: str, written: str, replace: bool = False) -> None:
        was = next(iter(self.fields(header)), None)
        text = "text/plain" if was is None and header.lower() == "content-type" else was or ""
        text = parameters.with_parameter(text, param, written)
        if text != was and replace:
            self.replace_header(header, text)
        elif text != was:
            del self[header]
            self[header] = text

    def set_type(self, type: str, header: str = "Content-Type", requote: bool = True) -> None:
        """Sets the media type; the parameters stay as they are. Raises ValueError for what is
        none."""
        if type.count("/") != 1:
            raise ValueError(f"a media type has one slash in it: {type!r}")
        if header.lower() == "content-type":
            del self["mime-version"]
            self["MIME-Version"] = "1.0"
        text = parameters.with_value("".join(self.fields(header)[:1]), type)
        del self[header]
        self[header] = text

    def set_boundary(self, boundary: str) -> None:
        """Sets what separates a multipart's parts. Raises email.errors.HeaderParseError without a
        Content-Type."""
        if "content-type" not in self:
            raise HeaderParseError("a boundary needs a Content-Type to stand in: set the type")
        self.set_param("boundary", boundary, replace=True)

    def get_params(
        self, failobj: Any = None, header: str = "content-type", unquote: bool = True
    ) -> Any:
        """Name and value of each parameter of a header; first the header's own value, with "".

        A value in the form of RFC 2231 is a tuple (charset, language, text).
        """
        found = self._parameters(header)
        if not found:
            return failobj
        return [(name, _unquoted(value) if unquote else value) for name, value in found]

    def get_param(
        self,
        param: str,
        failobj: Any = None,
        header: str = "content-type",
        unquote: bool = True,
    ) -> Any:
        """The value of a parameter of a header, else failobj. See get_params."""
        for name, value in self._parameters(header):
            if name.lower() == param.lower():
                return _unquoted(value) if unquote else value
        return failobj

    def get_filename(self, failobj: Any = None) -> Any:
        """The name in Content-Disposition, else in Content-Type, else failobj."""
        for param, header in (("filename", "content-disposition"), ("name", "content-type")):
            value = self.get_param(param, header=header)
            if value is not None:
                return parameters.readable(value).strip()
        return failobj

    def get_boundary(self, failobj: Any = None) -> Any:
        """What separates a multipart's parts, else failobj. Doubled quotes count as one."""
        value = self.get_param("boundary")
        if value is None:
            return failobj
        if isinstance(value, tuple):  # to be found as the bytes that it stands for
            value = value[2].encode("latin-1", "replace").decode("ascii", "surrogateescape")
        return parameters.unquote(value).rstrip() or failobj

    def boundaries(self) -> list[str]:
        """Every boundary that some mail program might read, in any Content-Type."""
        return [
            text
            for field in self.fields("content-type")
            if "boundary" in field.lower()
            for name, value in parameters.decoded(parameters.parameters(field))
            if name == "boundary"
            for text in parameters.readings(value)
        ]

    def has_several_readings(self) -> bool:
        """Whether, of several fields of a name, one says that this is a message or encoded, and
        another one something else."""
        kinds = [parameters.kind_of(field) or "" for field in self.fields("content-type")]
        fields = self.fields("content-transfer-encoding")
        encodings = {transfer.encoding_of(field) for field in fields}
        return len({kind.startswith("message/") for kind in kinds}) > 1 or (
            len(encodings) > 1 and any(map(transfer.is_encoded, encodings))
        )

    def getname(self) -> Any:
        """The parameter `name` of the Content-Type; None if there is none."""
        return self.get_param("name")

    def get_content_charset(self, failobj: Any = None) -> Any:
        """The parameter `charset` of the Content-Type in lower case, else failobj."""
        value = self.get_param("charset")
        text = None if value is None else parameters.readable(value).lower()
        return text if text is not None and text.isascii() else failobj

    def getencoding(self) -> str | None:
        """The Content-Transfer-Encoding as written; None if there is none."""
        value = self.get("content-transfer-encoding")
        return value if value is None else str(value)

    def getparams(self) -> list[Any]:
        """The parameters of the Content-Type, as get_params has them; none if it is not there."""
        found: list[Any] = self.get_params([])
        return found

    getfilename = get_filename
    getheaders = Message.get_all
    getparam = get_param
    gettype = get_content_type


def _unquoted(value: parameters.Value) -> parameters.Value:
    return value if isinstance(value, tuple) else parameters.unquote(value)

"""`FormHead`: reads the text fields of a multipart form while it is still arriving.

The gateway passes the form's bytes on as they are, so all it wants to know is where to: the model, and with it the
language. OpenAI's clients send fields in no fixed order (curl sends `file` first if it is named first), so reading stops
as soon as the model is known and the file has begun, and goes through the whole file only when the file came first.
"""

from typing import Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from everwarm_core.errors import InvalidParameter, InvalidRequest

MAX_TEXT_BYTES: Final = (
    65_536  # of all names and values together; the longest allowed prompt is 16 Ki characters
)
MAX_PARTS: Final = 64
FILE_HEAD_BYTES: Final = 64  # enough for the header of a WAV file


class FormHead:
    """What a form with *content_type* has told so far. Raises InvalidParameter when it is no multipart form."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidParameter("content-type", "send multipart/form-data with a boundary")
        self.fields: list[tuple[str, str]] = []
        """Text fields, in order; whole ones only."""
        self.file_head = b""
        """The first bytes of the file."""
        self._file_began = False
        self._is_complete = False
        self._parts = 0
        self._text_bytes = 0
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._name: str | None = None
        self._value = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name_goes_on,
                "on_header_value": self._header_value_goes_on,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_goes_on,
                "on_part_end": self._part_ends,
                "on_end": self._form_ends,
            },
        )

    @property
    def is_decisive(self) -> bool:
        """Whether enough was read to choose a pod: the model and the begin of the file, or everything."""
        return self._is_complete or (self._file_began and any(name == "model" for name, _ in self.fields))

    @property
    def is_complete(self) -> bool:
        """Whether the form was read to its end."""
        return self._is_complete

    def feed(self, piece: bytes) -> None:
        """Read on. Raises InvalidRequest when the form is damaged, InvalidParameter when it is too long for one."""
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise InvalidRequest(f"the multipart form is damaged: {error}") from error

    def ensure_decisive(self) -> None:
        """Raise InvalidRequest when the body has ended before the form told where to go."""
        if not self.is_decisive:
            raise InvalidRequest("the multipart form ends before its closing boundary")

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"the form has more than {MAX_PARTS} parts")
        self._headers = {}

    def _header_name_goes_on(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header_name += data[start:end]

    def _header_value_goes_on(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header_value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            raise InvalidRequest("a part of the form has no name")
        if b"filename" in options or name == b"file":
            self._name, self._file_began = None, True
        else:
            self._name, self._value = name.decode(errors="replace"), b""

    def _part_goes_on(self, data: bytes, start: int, end: int) -> None:
        if self._name is None:
            if len(self.file_head) < FILE_HEAD_BYTES:
                self.file_head += data[start : min(end, start + FILE_HEAD_BYTES)]
            return
        self._count(end - start)
        self._value += data[start:end]

    def _part_ends(self) -> None:
        if self._name is not None:
            try:
                self.fields.append((self._name, self._value.decode()))
            except UnicodeDecodeError as error:
                raise InvalidParameter(self._name[:64], "is not UTF-8") from error

    def _form_ends(self) -> None:
        self._is_complete = True

    def _count(self, size: int) -> None:
        self._text_bytes += size
        if self._text_bytes > MAX_TEXT_BYTES:
            raise InvalidRequest(f"the form's text fields are longer than {MAX_TEXT_BYTES} bytes")

"""Multipart forms read while they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm.gateway.form import MAX_PARTS, MAX_TEXT_BYTES, FormHead
from everwarm_core.errors import InvalidParameter, InvalidRequest

BOUNDARY = "xyz"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, value: bytes, *, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def end() -> bytes:
    return f"--{BOUNDARY}--\r\n".encode()


def test_a_form_is_decisive_when_the_model_is_known_and_the_file_begins() -> None:
    form = FormHead(CONTENT_TYPE)
    decisive = []
    for piece in (
        part("model", b"base.en"),
        part("language", b"en"),
        part("file", b"sound", filename="a.wav"),
    ):
        form.feed(piece)
        decisive.append(form.is_decisive)
    assert decisive == [False, False, True]
    assert not form.is_complete
    assert form.fields == [("model", "base.en"), ("language", "en")]


def test_a_form_with_the_file_first_is_read_to_its_end() -> None:
    form = FormHead(CONTENT_TYPE)
    decisive = []
    for piece in (
        part("file", b"\r\n--xy" * 1000, filename="a.wav"),
        part("language", b"en"),
        part("model", b"base.en") + end(),
    ):
        form.feed(piece)
        decisive.append((form.is_decisive, form.is_complete))
    assert decisive == [(False, False), (False, False), (True, True)]
    assert form.fields == [("language", "en"), ("model", "base.en")]


@given(
    cuts=st.lists(st.integers(1, 60), max_size=30),
    sound=st.binary(max_size=300),
    values=st.lists(
        st.tuples(st.sampled_from(["model", "prompt", "language"]), st.text(max_size=30)), max_size=5
    ),
    file_at=st.integers(0, 5),
)
def test_a_form_reads_the_same_fields_however_it_is_cut(
    cuts: list[int], sound: bytes, values: list[tuple[str, str]], file_at: int
) -> None:
    """Field values may hold anything but the boundary line itself."""
    parts = [part(name, value.encode()) for name, value in values]
    parts.insert(file_at, part("file", sound.replace(b"--xyz", b""), filename="a.wav"))
    body = b"".join(parts) + end()
    form = FormHead(CONTENT_TYPE)
    for cut in cuts:
        form.feed(body[:cut])
        body = body[cut:]
    form.feed(body)
    assert form.is_complete
    assert form.fields == [(name, value) for name, value in values]
    assert sound.replace(b"--xyz", b"").startswith(form.file_head[:64])


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"]
)
def test_a_form_of_another_type_is_refused_by_name(content_type: str) -> None:
    with pytest.raises(InvalidParameter) as told:
        FormHead(content_type)
    assert told.value.param == "content-type"


def test_a_damaged_form_is_the_callers_fault() -> None:
    form = FormHead(CONTENT_TYPE)
    with pytest.raises(InvalidRequest, match="damaged"):
        form.feed(b"this is no form at all")


def test_a_form_that_ends_too_early_is_the_callers_fault() -> None:
    form = FormHead(CONTENT_TYPE)
    form.feed(part("language", b"en"))
    with pytest.raises(InvalidRequest, match="closing boundary"):
        form.ensure_decisive()


def test_text_fields_are_bounded_however_many_there_are() -> None:
    form = FormHead(CONTENT_TYPE)
    many = part("prompt", b"x" * (MAX_TEXT_BYTES // 10)) * 20
    with pytest.raises(InvalidRequest, match="longer than"):
        form.feed(many)


def test_parts_are_bounded_however_small_they_are() -> None:
    form = FormHead(CONTENT_TYPE)
    with pytest.raises(InvalidRequest, match="parts"):
        form.feed(part("x", b"") * (MAX_PARTS + 1))


def test_the_head_of_the_file_is_kept_and_not_more() -> None:
    form = FormHead(CONTENT_TYPE)
    form.feed(part("file", b"RIFF" + b"\0" * 10_000, filename="a.wav"))
    assert form.file_head[:4] == b"RIFF"
    assert len(form.file_head) <= 64

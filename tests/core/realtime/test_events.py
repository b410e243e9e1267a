"""Events of the realtime protocol: what is wrong is told with its field, and what we send is what OpenAI's types read."""

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.beta.realtime import transcription_session_updated_event as beta
from openai.types.realtime import RealtimeErrorEvent, RealtimeServerEvent
from pydantic import TypeAdapter

from everwarm_core.errors import EverwarmError, InvalidEvent, ModelNotFound
from everwarm_core.realtime.audio import AudioFormat
from everwarm_core.realtime.config import MANUAL, SessionConfig
from everwarm_core.realtime.endpoint import Endpointing
from everwarm_core.realtime.events import (
    MAX_EVENT_CHARS,
    Append,
    BetaSessionUpdate,
    SessionUpdate,
    completed_event,
    decode_audio,
    delta_event,
    error_event,
    failed_event,
    item_of,
    parse_event,
    server_event,
)
from everwarm_core.transcript import Transcript

SERVER_EVENT = TypeAdapter[RealtimeServerEvent](RealtimeServerEvent)
TRANSCRIPT = Transcript(language="en", duration=2.4, text="Half past three.")


def update(**session: object) -> SessionConfig:
    event = parse_event(json.dumps({"type": "session.update", "session": session}))
    assert isinstance(event, SessionUpdate)
    return SessionConfig(model="tiny.en").updated(event.session)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "type"),
        ('{"type": 7}', "type"),
        ('{"type": "response.create"}', "response.create"),
        ('{"type": "input_audio_buffer.append"}', "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 7}', "audio"),
        ('{"type": "session.update", "session": {"type": "realtime"}}', "session.type"),
        (
            '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}}',
            "format",
        ),
        (
            '{"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}}',
            "turn_detection",
        ),
        (
            '{"type": "transcription_session.update", "session": {"input_audio_format": "opus"}}',
            "input_audio_format",
        ),
        ('{"type": "input_audio_buffer.append", "audio": "' + "A" * MAX_EVENT_CHARS + '"}', "longer"),
    ],
)
def test_event_that_is_none_is_told_with_what_is_wrong(text: str, named: str) -> None:
    with pytest.raises(InvalidEvent, match=named):
        parse_event(text)


def test_error_names_the_clients_event() -> None:
    with pytest.raises(InvalidEvent) as raised:
        parse_event('{"type": "nonsense", "event_id": "mine"}')
    told = RealtimeErrorEvent.model_validate_json(error_event(raised.value), strict=True)
    assert (told.error.event_id, told.error.type, told.error.param) == (
        "mine",
        "invalid_request_error",
        "type",
    )


@given(text=st.text() | st.binary().map(lambda b: base64.b64encode(b).decode()))
def test_audio_is_base64_or_an_error(text: str) -> None:
    event = Append(type="input_audio_buffer.append", audio=text)
    with suppress(InvalidEvent):
        assert base64.b64encode(decode_audio(event)).decode() == text


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["type", "session", "audio", "input", "format", "turn_detection"]), inner
            )
        ),
        max_leaves=20,
    )
)
def test_no_document_is_a_defect(document: object) -> None:
    with suppress(InvalidEvent):
        parse_event(json.dumps(document))


def test_update_changes_what_it_names_and_leaves_the_rest() -> None:
    config = update(audio={"input": {"transcription": {"language": "en-US", "prompt": "Everwarm"}}})
    assert (config.model, config.language, config.prompt) == ("tiny.en", "en", "Everwarm")
    assert config.endpointing == Endpointing()
    assert update(audio={"input": {"turn_detection": None}}).endpointing == MANUAL
    assert update(audio={"input": {"format": {"type": "audio/pcmu"}}}).form is AudioFormat.PCMU


def test_turn_detection_is_as_given_and_else_openais() -> None:
    config = update(audio={"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 350}}})
    assert config.endpointing == Endpointing(threshold=0.5, prefix_ms=300, silence_ms=350)


@pytest.mark.parametrize(
    "session",
    [
        {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
        {"audio": {"input": {"transcription": {"language": "klingon"}}}},
    ],
)
def test_what_cannot_be_honoured_is_an_error(session: dict[str, object]) -> None:
    with pytest.raises(EverwarmError):
        update(**session)


def test_beta_says_the_same_in_flat_words() -> None:
    event = parse_event(
        json.dumps(
            {
                "type": "transcription_session.update",
                "session": {
                    "input_audio_format": "g711_ulaw",
                    "input_audio_transcription": {"model": "base", "language": "de"},
                    "turn_detection": None,
                },
            }
        )
    )
    assert isinstance(event, BetaSessionUpdate)
    config = SessionConfig().updated(event.session)
    assert config == SessionConfig("base", "de", None, AudioFormat.PCMU, MANUAL)
    shown = server_event("transcription_session.updated", session=config.beta("sess_1", expires_at=1))
    assert json.loads(shown)["session"]["input_audio_format"] == "g711_ulaw"
    assert beta.__name__


@pytest.mark.parametrize(
    "event",
    [
        server_event("session.created", session=SessionConfig().ga("sess_1", expires_at=1)),
        server_event("session.updated", session=SessionConfig("base", "en").ga("sess_1", expires_at=1)),
        server_event("input_audio_buffer.speech_started", item_id="item_1", audio_start_ms=10),
        server_event("input_audio_buffer.speech_stopped", item_id="item_1", audio_end_ms=10),
        server_event("input_audio_buffer.committed", item_id="item_2", previous_item_id="item_1"),
        server_event("input_audio_buffer.cleared"),
        server_event("conversation.item.added", item=item_of("item_1"), previous_item_id=None),
        server_event("conversation.item.done", item=item_of("item_1"), previous_item_id=None),
        delta_event("item_1", "Half"),
        completed_event("item_1", TRANSCRIPT),
        failed_event("item_1", ModelNotFound("large")),
        error_event(InvalidEvent("wrong")),
    ],
    ids=lambda event: json.loads(event)["type"],
)
def test_what_we_send_is_what_openais_types_read(event: str) -> None:
    read = SERVER_EVENT.validate_json(event, strict=True)
    assert type(read).__name__ != "dict"
    assert json.loads(event)["type"] == read.type

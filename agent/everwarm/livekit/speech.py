"""From LiveKit's audio frames to the samples pods take, and from a transcript back to LiveKit's data; pure.

Times are seconds from the first sample of the buffer, as livekit-agents expects of batch recognition; in a stream,
whose utterances begin anywhere, seconds on the clock of whoever opened the stream.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from livekit import rtc
from livekit.agents import stt
from livekit.agents.language import LanguageCode
from livekit.agents.types import TimedString
from livekit.agents.utils import AudioBuffer

from everwarm.audio_input import SAMPLE_RATE
from everwarm_core.errors import InvalidAudio
from everwarm_core.transcript import Segment, Transcript, Word

Samples = npt.NDArray[np.int16]

RESAMPLER_QUALITY: Final = (
    rtc.AudioResamplerQuality.HIGH
)  # as livekit-agents' own streams; 30 s take some 20 ms


def samples_of(buffer: AudioBuffer) -> Samples:
    """The speech in *buffer*: int16 at 16 kHz, mono, shape (samples,). Blocks for as long as resampling takes.

    Several channels are averaged. Raises InvalidAudio when there is nothing in it or its frames do not fit together.
    """
    try:
        frame = rtc.combine_audio_frames(buffer)
    except ValueError as error:
        raise InvalidAudio(f"the frames are no utterance: {error}") from error
    if not frame.samples_per_channel:
        raise InvalidAudio("the frames hold no samples")
    samples = averaged(frame)
    return samples if frame.sample_rate == SAMPLE_RATE else _resampled(samples, frame.sample_rate)


def averaged(frame: rtc.AudioFrame) -> Samples:
    """The samples of *frame*, its channels averaged."""
    samples: Samples = np.frombuffer(frame.data, dtype=np.int16)
    if frame.num_channels == 1:
        return samples
    channels = samples.reshape(-1, frame.num_channels)
    mean: Samples = np.rint(channels.mean(axis=1, dtype=np.float32)).astype(np.int16)
    return mean


def mono(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """*frame* with one channel, at the rate it has."""
    if frame.num_channels == 1:
        return frame
    return rtc.AudioFrame(averaged(frame).tobytes(), frame.sample_rate, 1, frame.samples_per_channel)


def speech_event(transcript: Transcript, *, request_id: str) -> stt.SpeechEvent:
    """The final transcript of one utterance as LiveKit's event; an empty text when nothing was said."""
    return stt.SpeechEvent(
        type=stt.SpeechEventType.FINAL_TRANSCRIPT,
        request_id=request_id,
        alternatives=[speech_data(transcript)],
        recognition_usage=stt.RecognitionUsage(audio_duration=transcript.duration),
    )


def speech_data(transcript: Transcript, *, began_s: float = 0.0) -> stt.SpeechData:
    """What was said in an utterance whose audio began at *began_s*."""
    segments = transcript.segments
    return stt.SpeechData(
        language=LanguageCode(transcript.language),
        text=transcript.text,
        start_time=began_s + (segments[0].start if segments else 0.0),
        end_time=began_s + (segments[-1].end if segments else transcript.duration),
        confidence=confidence_of(segments),
        words=None if transcript.words is None else [_timed(word, began_s) for word in transcript.words],
    )


def confidence_of(segments: tuple[Segment, ...]) -> float:
    """The geometric mean of the tokens' probabilities, 0 to 1; 0 for no speech."""
    weights = [max(1, len(segment.tokens)) for segment in segments]
    if not weights:
        return 0.0
    logprob = sum(w * s.avg_logprob for w, s in zip(weights, segments, strict=True)) / sum(weights)
    return min(1.0, math.exp(min(0.0, logprob)))


def _timed(word: Word, began_s: float) -> TimedString:
    return TimedString(
        word.word.strip(),
        start_time=began_s + word.start,
        end_time=began_s + word.end,
        confidence=word.probability,
    )


def _resampled(samples: Samples, rate: int) -> Samples:
    resampler = rtc.AudioResampler(rate, SAMPLE_RATE, num_channels=1, quality=RESAMPLER_QUALITY)
    frames = [*resampler.push(bytearray(samples.tobytes())), *resampler.flush()]
    return np.concatenate([np.frombuffer(frame.data, dtype=np.int16) for frame in frames] or [samples[:0]])

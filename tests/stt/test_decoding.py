"""What becomes of segments on their way out of a decode."""

from everwarm_core.transcript import Segment
from everwarm_stt.engine.decoding import Piece, without_sounds
from everwarm_stt.engine.guards import LOG_PROBABILITY, NO_SPEECH_AT_ALL


def piece(number: int, text: str, *, avg_logprob: float = -0.5, no_speech_prob: float = 0.1) -> Piece:
    return Piece(
        Segment(
            id=number,
            seek=0,
            start=float(number),
            end=number + 1.0,
            text=text,
            tokens=(13,),
            temperature=0.0,
            avg_logprob=avg_logprob,
            compression_ratio=1.0,
            no_speech_prob=no_speech_prob,
        ),
        (),
    )


def test_segments_without_a_word_are_left_out_and_the_others_numbered_anew() -> None:
    heard = [piece(0, "."), piece(1, " Half past three."), piece(2, " ♪ ♪"), piece(3, " 15:30"), piece(4, "")]
    kept = [(piece.segment.id, piece.segment.text) for piece in without_sounds(heard)]
    assert kept == [(0, " Half past three."), (1, " 15:30")]


def test_words_that_whisper_is_unsure_of_and_takes_for_silence_are_left_out() -> None:
    unsure = {"avg_logprob": LOG_PROBABILITY - 0.1}
    silent = {"no_speech_prob": NO_SPEECH_AT_ALL + 0.1}
    heard = [piece(0, "You", **unsure, **silent), piece(1, "Yes.", **unsure), piece(2, "No.", **silent)]
    assert [piece.segment.text for piece in without_sounds(heard)] == ["Yes.", "No."]

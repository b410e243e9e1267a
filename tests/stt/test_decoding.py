"""What becomes of segments on their way out of a decode."""

from everwarm_core.transcript import Segment
from everwarm_stt.engine.decoding import Piece, with_words


def piece(number: int, text: str) -> Piece:
    return Piece(
        Segment(
            id=number,
            seek=0,
            start=float(number),
            end=number + 1.0,
            text=text,
            tokens=(13,),
            temperature=0.0,
            avg_logprob=-0.5,
            compression_ratio=1.0,
            no_speech_prob=0.1,
        ),
        (),
    )


def test_segments_without_a_word_are_left_out_and_the_others_numbered_anew() -> None:
    heard = [piece(0, "."), piece(1, " Half past three."), piece(2, " ♪ ♪"), piece(3, " 15:30"), piece(4, "")]
    kept = [(piece.segment.id, piece.segment.text) for piece in with_words(heard)]
    assert kept == [(0, " Half past three."), (1, " 15:30")]

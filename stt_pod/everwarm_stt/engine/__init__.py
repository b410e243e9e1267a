"""Speech to text, in one process: one loaded model, decodes that run on it, and nothing of HTTP.

`engine` loads and is what everybody else calls; `options` says how a request is decoded, `decoding` what comes out.
An utterance goes through `utterance`: one short encoder window (`windows`) by CTranslate2 directly, with others at once
where they wait (`searches`), judged by `guards`.
What they doubt, and every recording, goes through faster-whisper's own path at the full window. `silence` is its
detector of speech, bounded in memory; `memory` gives back what full windows needed.
"""

from everwarm_stt.engine.decoding import Decoding, Piece
from everwarm_stt.engine.engine import Engine, import_libraries, is_recording
from everwarm_stt.engine.options import DecodeOptions

__all__ = ["DecodeOptions", "Decoding", "Engine", "Piece", "import_libraries", "is_recording"]

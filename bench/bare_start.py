"""The least that a warm start can be: `python bench/bare_start.py WEIGHTS DECODES`.

Imports CTranslate2, tokenizers and numpy, loads the weights, and does the decodes that `bench.start_to_warm` has written to
DECODES: what a pod does in its warm-up, and nothing of what a pod is. Prints `warm` when it is done.
"""

import pickle
import sys
from pathlib import Path

import ctranslate2
import numpy as np
import tokenizers


def main(weights: str, decodes: str) -> None:
    """Load and decode."""
    model = ctranslate2.models.Whisper(weights, device="cpu", compute_type="int8", intra_threads=1)
    tokenizers.Tokenizer.from_file(str(Path(weights) / "tokenizer.json"))
    encoded = None
    for name, positional, named in pickle.loads(Path(decodes).read_bytes()):  # noqa: S301 - our own file
        if name == "encode":
            encoded = model.encode(ctranslate2.StorageView.from_array(np.asarray(positional[0])))
        else:
            getattr(model, name)(encoded, *positional, **named)
    sys.stdout.write("warm\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

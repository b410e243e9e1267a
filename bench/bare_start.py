"""The least that a warm start can be: `python bench/bare_start.py WEIGHTS DECODES`.

Imports CTranslate2, tokenizers and numpy, loads the weights, and does the decodes that `bench.start_to_warm` has written to
DECODES: what a pod does in its warm-up, and nothing of what a pod is. Features are computed as a decode computes them, by
that one module of faster-whisper, which is numpy and nothing else. Prints `warm` when it is done.
"""

import pickle
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import tokenizers


def feature_extractor() -> Any:
    """faster-whisper's, without its package."""
    package = find_spec("faster_whisper")
    assert package is not None
    assert package.origin is not None
    spec = spec_from_file_location(
        "feature_extractor", Path(package.origin).with_name("feature_extractor.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FeatureExtractor()


def main(weights: str, decodes: str) -> None:
    """Load and decode."""
    model = ctranslate2.models.Whisper(weights, device="cpu", compute_type="int8", intra_threads=1)
    tokenizers.Tokenizer.from_file(str(Path(weights) / "tokenizer.json"))
    features = feature_extractor()
    encoded = None
    for name, positional, named in pickle.loads(Path(decodes).read_bytes()):  # noqa: S301 - our own file
        if name == "features":
            features(*positional, **named)
        elif name == "encode":
            encoded = model.encode(ctranslate2.StorageView.from_array(np.asarray(positional[0])))
        else:
            getattr(model, name)(encoded, *positional, **named)
    sys.stdout.write("warm\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The errors a caller can meet, public under one name: `from everwarm import errors`.

The tree, its data and the HTTP table live in `everwarm_core.errors`, because pods raise the same classes and answers
are read back into them. What only programs raise (a bad resource file, weights that cannot be had) is not repeated.
"""

from everwarm_core.errors import (
    AudioTooLong,
    CapacityError,
    DeadlineExceeded,
    EverwarmError,
    GatewayFull,
    InternalError,
    InvalidAudio,
    InvalidParameter,
    InvalidRequest,
    ModelNotFound,
    ModelNotWarm,
    PodDraining,
    PodFailed,
    PodFull,
    RateLimited,
    RegistryUnavailable,
    Unauthorized,
    UnsupportedLanguage,
    UploadTooLarge,
    UploadTooSlow,
)

__all__ = [
    "AudioTooLong",
    "CapacityError",
    "DeadlineExceeded",
    "EverwarmError",
    "GatewayFull",
    "InternalError",
    "InvalidAudio",
    "InvalidParameter",
    "InvalidRequest",
    "ModelNotFound",
    "ModelNotWarm",
    "PodDraining",
    "PodFailed",
    "PodFull",
    "RateLimited",
    "RegistryUnavailable",
    "Unauthorized",
    "UnsupportedLanguage",
    "UploadTooLarge",
    "UploadTooSlow",
]

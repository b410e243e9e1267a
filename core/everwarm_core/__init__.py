"""What every part of Everwarm agrees on: keys, the WhisperModel spec, the registry, telemetry and errors."""

"""One STT pod: one process, one Whisper model, N slots, proven warm before it is ready."""

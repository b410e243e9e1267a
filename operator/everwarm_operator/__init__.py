"""The operator of Everwarm: WhisperModel resources become pods that are Ready only when proven warm."""

"""Speech-to-text for voice agents, served by pods that are already warm."""

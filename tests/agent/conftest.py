"""Settings for the agent's tests."""

from hypothesis import settings

# Examples are judged by what they find, not by how long they take: runs share their machine with other work.
settings.register_profile("agent", deadline=None)
settings.load_profile("agent")

"""A LiveKit agent that hears with Everwarm: no model in the worker, the first utterance as fast as every other.

    pip install 'everwarm[livekit]'
    export EVERWARM_REDIS_URL=redis://redis:6379        # or EVERWARM_BASE_URL=http://gateway:8080
    python examples/livekit_agent.py console            # or `dev`, `start` with LIVEKIT_URL, _API_KEY, _API_SECRET

It writes down what it hears; a real agent has an `llm` and a `tts` too. The STT says when a turn is over, so there is no
VAD. Without any pod on the network `fallback="local"` starts one on this machine for all worker processes (needs
`everwarm[local]`).
"""

from livekit.agents import (
    Agent,
    AgentSession,
    JobContext,
    JobProcess,
    TurnHandlingOptions,
    WorkerOptions,
    cli,
)
from livekit.agents.voice import UserInputTranscribedEvent

from everwarm.livekit import create_stt


def prewarm(_: JobProcess) -> None:
    """Once per worker process, before its first call: pods are looked for, and the detector of speech is loaded."""
    create_stt(model="tiny.en", language="en", fallback="local").prewarm()


def new_session() -> AgentSession[None]:
    """A session that hears with the one STT of this process."""
    return AgentSession(
        stt=create_stt(model="tiny.en", language="en", fallback="local"),
        vad=None,
        turn_handling=TurnHandlingOptions(turn_detection="stt"),
    )


async def entrypoint(job: JobContext) -> None:
    """One call."""
    session = new_session()

    @session.on("user_input_transcribed")
    def heard(event: UserInputTranscribedEvent) -> None:
        if event.is_final:
            print(event.transcript)

    await session.start(Agent(instructions="You only listen."), room=job.room)


if __name__ == "__main__":
    cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint, prewarm_fnc=prewarm))

"""A LiveKit agent that hears with Everwarm: no model in the worker, the first utterance as fast as every other.

    pip install 'everwarm[livekit]' livekit-plugins-silero
    export EVERWARM_REDIS_URL=redis://redis:6379        # or EVERWARM_BASE_URL=http://gateway:8080
    python examples/livekit_agent.py console            # or `dev`, `start` with LIVEKIT_URL, _API_KEY, _API_SECRET

It writes down what it hears; a real agent has an `llm` and a `tts` too. Without any pod on the network
`fallback="local"` starts one on this machine for all worker processes (needs `everwarm[local]`).
"""

from livekit.agents import Agent, AgentSession, JobContext, JobProcess, WorkerOptions, cli
from livekit.agents.voice import UserInputTranscribedEvent
from livekit.plugins import silero

from everwarm.livekit import create_stt


def prewarm(process: JobProcess) -> None:
    """Once per worker process, before its first call: the VAD is loaded, and pods are looked for."""
    process.userdata["vad"] = silero.VAD.load()
    create_stt(model="tiny.en", language="en", fallback="local").prewarm()


async def entrypoint(job: JobContext) -> None:
    """One call: every job of the process gets the same STT, in an adapter of its own."""
    stt = create_stt(model="tiny.en", language="en", fallback="local", vad=job.proc.userdata["vad"])
    session: AgentSession[None] = AgentSession(stt=stt, vad=job.proc.userdata["vad"])

    @session.on("user_input_transcribed")
    def heard(event: UserInputTranscribedEvent) -> None:
        if event.is_final:
            print(event.transcript)

    await session.start(Agent(instructions="You only listen."), room=job.room)


if __name__ == "__main__":
    cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint, prewarm_fnc=prewarm))

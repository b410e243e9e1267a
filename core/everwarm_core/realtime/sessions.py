"""All realtime sessions of one process: how many there may be, and how they end together."""

import asyncio
from typing import Protocol, Self

from everwarm_core.errors import PodDraining, TooManySessions
from everwarm_core.realtime.listener import Habits, Transcriber
from everwarm_core.realtime.session import Session, SessionLimits, Socket


class RealtimeSettings(Protocol):
    """What a program's settings say of its sessions, under the same names in all programs."""

    @property
    def realtime_sessions(self) -> int:
        """Sessions at a time."""

    @property
    def realtime_idle_seconds(self) -> float:
        """Longest time in which a client sends nothing."""

    @property
    def realtime_session_seconds(self) -> float:
        """Longest session."""

    @property
    def realtime_utterance_seconds(self) -> float:
        """Longest audio between two commits of a client's own."""

    @property
    def realtime_partial_seconds(self) -> float:
        """New speech between two glances; 0 for none."""


class Sessions:
    """At most *limit* sessions at a time, each within *limits*."""

    def __init__(self, limit: int, *, limits: SessionLimits, habits: Habits) -> None:
        self._limit = limit
        self._limits = limits
        self._habits = habits
        self._open: set[Session] = set()
        self._is_draining = False
        self._ended = asyncio.Event()

    @classmethod
    def of(cls, settings: RealtimeSettings) -> Self:
        """Those that *settings* allow."""
        return cls(
            settings.realtime_sessions,
            limits=SessionLimits(
                idle_s=settings.realtime_idle_seconds, length_s=settings.realtime_session_seconds
            ),
            habits=Habits(
                glance_s=settings.realtime_partial_seconds, limit_s=settings.realtime_utterance_seconds
            ),
        )

    def __len__(self) -> int:
        return len(self._open)

    def ensure_room(self) -> None:
        """Raise TooManySessions, or PodDraining once the process shuts down."""
        if self._is_draining:
            raise PodDraining
        if len(self._open) >= self._limit:
            raise TooManySessions(self._limit)

    async def serve(self, socket: Socket, transcriber: Transcriber, *, model: str | None) -> None:
        """Serve the client of *socket*, which was accepted, to the end; see Session."""
        session = Session(socket, transcriber, model=model, habits=self._habits, limits=self._limits)
        self._open.add(session)
        if self._is_draining:
            session.drain()
        try:
            await session.run()
        finally:
            self._open.discard(session)
            if not self._open:
                self._ended.set()

    def drain(self) -> None:
        """Take no new sessions; end each as soon as nobody speaks there and every transcript is out."""
        self._is_draining = True
        for session in tuple(self._open):
            session.drain()

    async def ended(self) -> None:
        """Wait until none is open."""
        while self._open:
            self._ended.clear()
            await self._ended.wait()

"""An event loop on a thread of its own that keeps one async resource open for callers on any other loop, or on none.

A LiveKit process runs its jobs on loops that come and go: `prewarm_fnc` has none yet, each job of a thread executor
has another, and a cached STT outlives them all. `everwarm.Client` lives on the loop that opened it. So each STT owns
one loop and one Client for as long as it is used, whoever calls: the registry is followed through a busy agent loop
too, connections stay pooled between jobs, and no job's end leaves a client behind that nobody can close any more.
The way there and back costs about 0.1 ms.

Nothing exists until `start` or the first `call`. Calls run as tasks of the loop's one task group, in the caller's
context (so they join its trace), and are cancelled with the caller. `stop` cancels what runs, closes the resource and
ends the thread; a later call opens everything anew, since an instance may be shared with others who go on.
"""

import asyncio
import atexit
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, Generic, TypeVar

from everwarm.event_loop import new_event_loop

T = TypeVar("T")
R = TypeVar("R")

EXIT_WAIT_S: Final = 2.0  # for connections to be closed when the interpreter ends


class Stopped(Exception):
    """The loop was stopped while the call was under way."""


class OwnLoop(Generic[T]):
    """Keeps what *open_resource* opens; *name* is the thread's."""

    def __init__(self, name: str, open_resource: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._name = name
        self._open = open_resource
        self._guard = threading.Lock()
        self._life: _Life[T] | None = None
        _living.add(self)

    @property
    def is_running(self) -> bool:
        """Whether there is a thread now."""
        return self._life is not None and self._life.thread.is_alive()

    def start(self) -> None:
        """Begin to open the resource; returns at once, from any thread."""
        self._ensure()

    async def call(self, use: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        """The result of *use* of the resource, run on the own loop.

        Raises what it raises, what opening the resource raised, or Stopped.
        """
        return await asyncio.wrap_future(self.submit(use))

    def submit(self, use: Callable[[T], Coroutine[Any, Any, R]]) -> "Future[R]":
        """`call` for those without a loop; cancelling the future cancels the task."""
        return self._ensure().submit(use)

    def stop(self) -> threading.Thread | None:
        """Have everything end, and return the thread that does it; from any thread."""
        with self._guard:
            life, self._life = self._life, None
        if life is None or life.pid != os.getpid():
            return None
        life.stop()
        return life.thread

    async def aclose(self) -> None:
        """Stop, and return when everything is closed."""
        thread = self.stop()
        if thread is not None:
            await asyncio.to_thread(thread.join)

    def _ensure(self) -> "_Life[T]":
        with self._guard:
            life = self._life
            # After a fork the thread stayed with the parent.
            if life is None or life.is_over or life.pid != os.getpid():
                life = self._life = _Life(self._name, self._open)
            return life


class _Life(Generic[T]):
    """One thread, its loop, and the resource on it."""

    def __init__(self, name: str, open_resource: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self.pid: Final = os.getpid()
        self.is_over = False
        self._open = open_resource
        self._loop = new_event_loop()
        self._door = threading.Lock()
        self._is_shut = False
        self._settled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._resource: T | None = None
        self._failure: Exception | None = None
        self._calls = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        # Queued before any call can be; in an empty context, for it belongs to no caller's trace.
        self._main = self._loop.create_task(self._live(), context=contextvars.Context())
        self.thread: Final = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def submit(self, use: Callable[[T], Coroutine[Any, Any, R]]) -> "Future[R]":
        future: Future[R] = Future()
        with self._door:
            if self._is_shut:
                future.set_exception(self._end())
            else:
                self._loop.call_soon_threadsafe(self._begin, use, future)
        return future

    def stop(self) -> None:
        self.is_over = True
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main)
        finally:
            self.is_over = True
            with self._door:
                self._is_shut = True
            self._loop.run_until_complete(
                asyncio.sleep(0)
            )  # calls that came through the door before are told
            self._loop.close()  # and not asyncio.run, whose end starts a thread, which a dying interpreter refuses

    async def _live(self) -> None:
        async with self._calls:
            try:
                async with self._open() as self._resource:
                    self._settled.set()
                    await self._stopping.wait()
                    for task in self._running:
                        task.cancel()
                    if self._running:
                        await asyncio.wait(self._running)
            except Exception as error:  # noqa: BLE001  # told to every caller, who knows what to do
                self._failure = error
            finally:
                self.is_over = True
                self._settled.set()

    def _begin(self, use: Callable[[T], Coroutine[Any, Any, R]], future: "Future[R]") -> None:
        if self._stopping.is_set() or self._main.done():
            future.set_exception(self._end())
            return
        task = self._calls.create_task(self._perform(use, future))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        future.add_done_callback(lambda done: self._cancel(task) if done.cancelled() else None)

    def _cancel(self, task: "asyncio.Task[None]") -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(task.cancel)

    async def _opened(self) -> T:
        await self._settled.wait()
        if self._failure is not None or self._resource is None:
            raise self._end()
        return self._resource

    def _end(self) -> Exception:
        """Why there is no answer."""
        return self._failure or Stopped("this STT was closed")

    async def _perform(self, use: Callable[[T], Coroutine[Any, Any, R]], future: "Future[R]") -> None:
        try:
            result = await use(await self._opened())
        except asyncio.CancelledError:
            if self._stopping.is_set() and future.set_running_or_notify_cancel():
                future.set_exception(self._end())
            raise
        except Exception as error:  # noqa: BLE001  # handed over whole to the caller
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(result)


_living: "weakref.WeakSet[OwnLoop[Any]]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Close what is still open while there is an interpreter to do it with."""
    for thread in [own_loop.stop() for own_loop in tuple(_living)]:
        if thread is not None:
            thread.join(EXIT_WAIT_S)

"""A coroutine run from plain code, so that Ctrl-C ends it at once."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any


#: Seconds that a cancelled coroutine has to close its connections.
TO_CLOSE = 1.0


def run_apart(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """
    The result of a coroutine, on an event loop in a thread of its own (a notebook has one running in this thread).
    An exception in this thread, such as Ctrl-C, cancels it.
    """
    outcome: Future = Future()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task]] = []

    async def main() -> None:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        try:
            result = await coroutine
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    # A daemon: looking up a name can't be cancelled, and must not keep the process.
    thread = threading.Thread(target=asyncio.run, args=[main()], daemon=True)
    thread.start()
    try:
        return outcome.result()
    finally:
        for loop, task in running:
            if not outcome.done():
                loop.call_soon_threadsafe(task.cancel)
        thread.join(TO_CLOSE)

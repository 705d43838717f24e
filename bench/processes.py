"""Work spread over a few processes, as workers do it in production."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

from bench import stack

PROCESSES = 2


def run(work: Callable[[Any], object], items: Iterable[Any]) -> tuple[float, int]:
    """Do the work on each item; return the seconds of all, and the most memory that a process held, in MiB.

    The processes are new and ready before the clock starts. They come from a server without threads: a fork beside
    those of the sandbox may wait for ever for a lock that one of them held. Raises what the work raised, and
    BrokenProcessPool if a process was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["config.wsgi", "config.urls"])
    ready = context.Barrier(PROCESSES + 1, timeout=stack.START_SECONDS_MAX)
    with ProcessPoolExecutor(PROCESSES, context, initializer=_start, initargs=(ready,)) as pool:
        for _process in range(PROCESSES):
            pool.submit(os.getpid)  # A process starts when there is something to do and nobody is idle.
        ready.wait()
        began = time.perf_counter()
        peaks = list(pool.map(partial(_peak_after, work), items))
        seconds = time.perf_counter() - began
    return seconds, max(peaks)


def _start(ready: Barrier) -> None:
    import django

    django.setup()
    ready.wait()


def _peak_after(work: Callable[[Any], object], item: Any) -> int:
    work(item)
    return stack.peak_rss_mb(os.getpid())

"""Clients that keep the web workers busy: persistent connections, bodies encoded beforehand."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

CONNECTIONS = 4


def post_all(
    port: int, path: str, bodies: Sequence[bytes], headers: dict[str, str]
) -> tuple[float, list[dict[str, int]]]:
    """Post every body once over a few connections; return the seconds and the answers."""
    waiting = iter(bodies)
    lock = Lock()
    answers: list[dict[str, int]] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with lock:
                body = next(waiting, None)
            if body is None:
                connection.close()
                return
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {answer}")
            with lock:
                answers.append(answer)

    started = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for future in [pool.submit(client) for _number in range(CONNECTIONS)]:
            future.result()
    return time.perf_counter() - started, answers


def get_per_s(port: int, path: str, headers: dict[str, str], *, requests: int) -> float:
    """Return how many GETs a second the workers answer."""

    def client(count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _number in range(count):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status}")
        connection.close()

    client(50)  # Warm.
    started = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for future in [pool.submit(client, requests // CONNECTIONS) for _number in range(CONNECTIONS)]:
            future.result()
    return requests / (time.perf_counter() - started)

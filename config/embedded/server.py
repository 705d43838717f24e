"""What PostgreSQL and Valkey have in common: start once, find again, stop."""

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from config.embedded import processes
from config.embedded.errors import StartError
from config.embedded.folders import Home, environment

START_SECONDS = 90
LOG_BYTES_MAX = 5_000_000
PORT_ATTEMPTS = 3

# Our children; a handle that goes away would leave a zombie that still looks like a running server.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Server(ABC):
    """One server process with its folder, log and password."""

    home: Home
    password: str

    name: ClassVar[str]
    program: ClassVar[str]
    # Signals to end with, and how long each may take.
    endings: ClassVar[tuple[tuple[signal.Signals, int], ...]]

    @property
    def folder(self) -> Path:
        return self.home.folder / self.name

    @property
    def log(self) -> Path:
        return self.home.var / f"{self.name}.log"

    @property
    @abstractmethod
    def tag(self) -> str:
        """What each of its processes has on its command line, and no other installation's."""

    @abstractmethod
    def prepare(self, port: int) -> list[str]:
        """Make what is missing in its folder and return the command that starts it."""

    @abstractmethod
    def answers(self, port: int) -> bool:
        """Tell whether it serves us, password and all."""

    @abstractmethod
    def url(self, port: int) -> str:
        """Return the address with the password."""

    def is_running(self, remembered: dict[str, int] | None) -> bool:
        """Tell whether the remembered process is ours and listens; cheap enough for every command."""
        return (
            remembered is not None
            and self.folder.is_dir()
            and processes.is_alive(remembered["pid"], self.program, self.tag)
            and _listens(remembered["port"])
        )

    def ensure(self, remembered: dict[str, int] | None) -> dict[str, int]:
        """Return the port and pid of the running server, started if it was not."""
        if remembered and self.is_running(remembered):
            return remembered
        self.stop()
        port = remembered["port"] if remembered and _is_free(remembered["port"]) else _free_port()
        for _attempt in range(PORT_ATTEMPTS):
            if (pid := self._start(port)) is not None:
                return {"port": port, "pid": pid}
            port = _free_port()
        raise StartError(f"{self.program} found no free port on 127.0.0.1; see {self.log}.")

    def stop(self) -> bool:
        """End all its processes, also those of a start that was killed; tell whether there were any."""
        found = processes.find(self.program, self.tag)
        if not found:
            return False
        ours = {process.pid for process in found}
        for ending, seconds in self.endings:
            pids = {process.pid for process in found}
            for process in found:
                if process.parent not in pids:  # Its children follow it.
                    _send(process.pid, ending)
            if _wait_until(lambda: not self._remaining(), seconds):
                for pid in ours & _children.keys():
                    _children.pop(pid).wait()
                return True
            found = self._remaining()
        raise StartError(f"{self.program} (process {found[0].pid}) does not stop; end it, then try again.")

    def _remaining(self) -> list[processes.Process]:
        for child in _children.values():
            child.poll()
        return processes.find(self.program, self.tag)

    def _start(self, port: int) -> int | None:
        """Start it and wait until it answers; None when another program took the port meanwhile."""
        command = self.prepare(port)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.log.touch(mode=0o600)
        with self.log.open("ab") as log:
            begin = log.tell()
            child = subprocess.Popen(
                command,
                cwd="/",
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A session of its own: Ctrl-C in the terminal must not end it behind our back.
                start_new_session=True,
                **self.home.popen_options(),
            )
        _children[child.pid] = child
        if (
            _wait_until(lambda: child.poll() is not None or self.answers(port), START_SECONDS)
            and child.poll() is None
        ):
            return child.pid
        if child.poll() is None:
            self.stop()
        written = self.log.read_bytes()[begin:].decode(errors="replace").strip()
        if "ddress already in use" in written:
            return None
        lines = "\n".join(f"    {line}" for line in written.splitlines()[-8:])
        raise StartError(f"{self.program} did not start; its log {self.log} ends with:\n{lines}")


def _send(pid: int, ending: signal.Signals) -> None:
    try:
        os.kill(pid, ending)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise StartError(
            f"Process {pid} of another user runs these services; stop it as that user."
        ) from None


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.3, 0.25)
    return True


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        connection.settimeout(2)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As the servers themselves do: connections of their last run that still linger do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

"""Finding our own server processes without trusting a pid file."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A name, so that the type checker does not leave out the other systems' branches.
ON_LINUX: bool = sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that is alive; a zombie has no command line and is none."""

    pid: int
    parent: int
    program: str
    command: str

    def belongs_to(self, program: str, tag: str) -> bool:
        """Tell whether this is one of our servers, by its program and our tag on its command line."""
        return self.program == program and tag in self.command


def find(program: str, tag: str) -> list[Process]:
    """Return the live processes of one of our servers."""
    return [process for process in _all() if process.belongs_to(program, tag)]


def is_alive(pid: int, program: str, tag: str) -> bool:
    """Tell whether `pid` is one of our servers, and not a zombie or another program that got the number."""
    candidates = [_on_linux(pid)] if ON_LINUX else [each for each in _elsewhere() if each.pid == pid]
    return any(process is not None and process.belongs_to(program, tag) for process in candidates)


def identity(pid: int) -> str:
    """Return what tells a process from a later one with the same pid, or "" when it is gone."""
    if ON_LINUX:
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        except OSError:
            return ""
        return "" if fields[0] == b"Z" else f"{boot}/{fields[19].decode()}"
    return _ps("-p", str(pid), "-o", "lstart=").strip()


def _all() -> Iterator[Process]:
    if not ON_LINUX:
        yield from _elsewhere()
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := _on_linux(int(entry.name))):
            yield process


def _on_linux(pid: int) -> Process | None:
    # These two files are readable whoever owns the process; its working folder, in a container, is not.
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    head, _, tail = stat.rpartition(b")")
    text = command.replace(b"\0", b" ").decode(errors="replace").strip()
    if not text:
        return None
    return Process(pid, int(tail.split()[1]), head.partition(b"(")[2].decode(errors="replace"), text)


def _elsewhere() -> Iterator[Process]:
    for line in _ps("-axww", "-o", "pid=,ppid=,ucomm=,command=").splitlines():
        pid, parent, program, *command = line.split(maxsplit=3)
        if command:
            yield Process(int(pid), int(parent), program, command[0])


def _ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False).stdout

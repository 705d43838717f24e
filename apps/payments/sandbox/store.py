"""The state of the sandbox: one SQLite file, or memory in tests; every request is one transaction."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Body = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS object (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS object_kind ON object (kind, seq);
CREATE TABLE IF NOT EXISTS answer (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL, at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS delivery (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL, state TEXT NOT NULL DEFAULT 'waiting', answer TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (state, due);
CREATE TABLE IF NOT EXISTS fault (
    id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, times INTEGER NOT NULL
);
"""
# How a transaction begins, ends well, and is undone.
_OUTERMOST = ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
_NESTED = ("SAVEPOINT inner", "RELEASE inner", ("ROLLBACK TO inner", "RELEASE inner"))


class Store:
    """Objects by id, the answers to idempotency keys, webhooks on their way, and scripted faults."""

    def __init__(self, path: Path | None = None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        self._connection.executescript(_SCHEMA)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._depth = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the only write lock; commit at the end, undo what was done here on any exception."""
        with self._lock:
            begin, commit, undo = _NESTED if self._depth else _OUTERMOST
            self._connection.execute(begin)
            self._depth += 1
            try:
                yield
            except BaseException:
                for statement in undo:
                    self._connection.execute(statement)
                raise
            else:
                self._connection.execute(commit)
            finally:
                self._depth -= 1

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def add(self, kind: str, prefix: str, body: Body) -> Body:
        """Store a new object with an id and a moment of its own, and return it."""
        made: Body = {"id": f"{prefix}_{secrets.token_hex(12)}", "object": kind, "created": now(), **body}
        self.run(
            "INSERT INTO object (id, kind, body) VALUES (?, ?, ?)",
            made["id"],
            made["object"],
            json.dumps(made),
        )
        return made

    def save(self, body: Body) -> Body:
        """Store an object as it is now."""
        self.run("UPDATE object SET body = ? WHERE id = ?", json.dumps(body), body["id"])
        return body

    def find(self, kind: str, identity: str) -> Body | None:
        """Return an object of a kind, or None."""
        rows = self.run("SELECT body FROM object WHERE id = ? AND kind = ?", identity, kind)
        return json.loads(rows[0][0]) if rows else None

    def newest(self, kind: str, *, before: str = "", after: str = "") -> Iterator[Body]:
        """Yield the objects of a kind, the newest first, from behind one and up to another."""
        upper = self._seq(before) or 2**62
        lower = self._seq(after) or 0
        while True:
            rows = self.run(
                "SELECT seq, body FROM object WHERE kind = ? AND seq < ? AND seq > ? ORDER BY seq DESC LIMIT 200",
                kind, upper, lower,
            )  # fmt: skip
            if not rows:
                return
            for seq, text in rows:
                upper = seq
                yield json.loads(text)

    def _seq(self, identity: str) -> int | None:
        rows = self.run("SELECT seq FROM object WHERE id = ?", identity) if identity else []
        return int(rows[0][0]) if rows else None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def now() -> int:
    """Return this moment as Stripe writes it: whole seconds since 1970."""
    return int(time.time())

"""What a log line of a failure tells, and what it keeps to itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

KEY = f"ch_live_AbCd1234_{'k' * 49}"
PROGRAM = f"""
import logging, django, structlog
django.setup()
from django.test import Client

def check(password):
    raise ValueError("no such key: {KEY}")

for log in (logging.getLogger("apps.core"), structlog.get_logger("apps.core")):
    try:
        check("correct horse")
    except ValueError:
        log.exception("it failed")
assert Client().get("/api/v1/", headers={{"host": "scanner.example"}}).status_code == 400
"""


@pytest.fixture(scope="module", params=["console", "json"])
def logged(request):
    """Return what the program logs: settings decide the format once, as a process reads them."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "LOG_FORMAT": request.param}
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    return program.stderr


def test_a_traceback_shows_where_and_no_secret(logged):
    assert logged.count("it failed") == 2
    assert logged.count("in check") == 2
    assert logged.count("no such key: ch_live_AbCd1234_…") + logged.count(r"ch_live_AbCd1234_\u2026") == 2
    assert "correct horse" not in logged
    assert "kkkk" not in logged


def test_a_host_that_is_not_ours_is_one_warning_without_a_traceback(logged):
    (line,) = [line for line in logged.splitlines() if "Invalid HTTP_HOST header" in line]

    assert "scanner.example" in line
    assert "warning" in line
    assert logged.count("Traceback") == 2  # Of the failures alone.

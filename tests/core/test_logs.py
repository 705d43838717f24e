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

def check(password):
    raise ValueError("no such key: {KEY}")

for log in (logging.getLogger("apps.core"), structlog.get_logger("apps.core")):
    try:
        check("correct horse")
    except ValueError:
        log.exception("it failed")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_where_and_no_secret(log_format):
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "LOG_FORMAT": log_format}
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )

    logged = program.stderr
    assert logged.count("it failed") == 2
    assert logged.count("in check") == 2
    assert logged.count("no such key: ch_live_AbCd1234_…") + logged.count(r"ch_live_AbCd1234_\u2026") == 2
    assert "correct horse" not in logged
    assert "kkkk" not in logged

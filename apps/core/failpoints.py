"""Named points at which tests of faults kill the process, as a crash or a power cut would."""

from __future__ import annotations

import os
import signal

from django.conf import settings

_VARIABLE = "COUNTINGHOUSE_FAIL_AT"


def reach(name: str) -> None:
    """Die by SIGKILL here if this is a development run and the environment names this point; else do nothing."""
    # Not a setting: no operator may turn it on, and a test sets it for one child process.
    if settings.DEBUG and os.environ.get(_VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)

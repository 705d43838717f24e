"""The gateway beside processes."""

from __future__ import annotations

import os

import pytest

from apps.payments import gateway


# The child does nothing that a thread of its parent could have locked.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_makes_connections_of_its_own(settings):
    settings.STRIPE_SECRET_KEY = "sk_test_forked"
    parents = gateway.current()
    assert gateway.current() is parents

    child = os.fork()
    if not child:
        os._exit(gateway.current() is parents)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gateway.current() is parents

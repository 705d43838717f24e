"""`check_payments`: what is missing before customers can pay is said, and ends with 1."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.payments.sandbox.api import ACCOUNT


def check():
    out = StringIO()
    call_command("check_payments", stdout=out, no_color=True)
    return out.getvalue()


def test_what_is_set_is_fine_and_stripe_names_the_account(stripe):
    assert "FAIL" not in (said := check())
    assert f"of account {ACCOUNT}" in said


@pytest.mark.parametrize(
    ("wrong", "count", "says"),
    [
        ({"STRIPE_SECRET_KEY": ""}, 1, "set STRIPE_SECRET_KEY"),
        ({"STRIPE_WEBHOOK_SECRETS": []}, 1, "STRIPE_WEBHOOK_SECRETS"),
        ({"STRIPE_WEBHOOK_SECRETS": ["sk_test_mixed_up"]}, 1, "whsec_"),
        ({"STRIPE_ACCOUNT": "acct_of_others"}, 1, f"the key is of {ACCOUNT}"),
        ({"STRIPE_SECRET_KEY": "rk_live_wrong", "PUBLIC_URL": "http://portal.example"}, 4, "https://"),
        ({"STRIPE_SECRET_KEY": "sk_test_wrong"}, 1, "An answer of Stripe to the key: "),
    ],
)
def test_what_is_missing_is_said(stripe, settings, capsys, wrong, count, says):
    for name, value in wrong.items():
        setattr(settings, name, value)

    with pytest.raises(CommandError, match=f"^{count} of these are missing"):
        call_command("check_payments", no_color=True)
    assert says in capsys.readouterr().out

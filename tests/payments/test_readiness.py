"""`check_payments`: what is missing before customers can pay is said, and ends with 1."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.payments import readiness
from apps.payments.sandbox.api import ACCOUNT
from apps.payments.services import EVENT_TYPES


def check():
    out = StringIO()
    call_command("check_payments", stdout=out, no_color=True)
    return out.getvalue()


@pytest.fixture
def stripe(stripe, settings):
    """Return a sandbox that knows where our webhook is."""
    stripe.engine.set_endpoint(f"{settings.PUBLIC_URL}/payments/webhook", EVENT_TYPES)
    return stripe


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


def test_what_the_endpoint_lacks_at_stripe_is_said(stripe, settings):
    ours = f"{settings.PUBLIC_URL}/payments/webhook"
    found = next(stripe.store.newest("webhook_endpoint"))
    lacks = [
        ({"url": "https://elsewhere.example/payments/webhook"}, f"make an endpoint at {ours}"),
        ({"status": "disabled"}, "switched off"),
        ({"enabled_events": ["*"]}, ""),
        (
            {"enabled_events": list(EVENT_TYPES[2:])},
            f"subscribe the endpoint to {EVENT_TYPES[0]}, {EVENT_TYPES[1]}",
        ),
        ({"api_version": "2020-08-27"}, "version is 2020-08-27"),
        ({"api_version": None}, "version is the account's"),
    ]
    for change, says in lacks:
        stripe.store.save(found | change)

        *_others, point = readiness.points()

        assert (says in point.problem) if says else point.problem == ""
    stripe.act("fault", match="GET /v1/webhook_endpoints", action="error", status=500, times=3)
    *_others, point = readiness.points()
    assert "read access" in point.problem


def test_the_operator_guide_names_the_events(settings):
    guide = (settings.ROOT / "docs" / "operator" / "stripe.md").read_text()

    assert [name for name in EVENT_TYPES if name not in guide.split()] == []

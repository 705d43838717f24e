"""What beat starts, and when: sweeps that find what a lost message left behind, and what the clock brings."""

from __future__ import annotations

from typing import Any

from celery.schedules import crontab


def beat_schedule(*, metering_tick_seconds: int) -> dict[str, Any]:
    """Return CELERY_BEAT_SCHEDULE."""
    return {
        "metering-tick": {
            "task": "billing.meter_all",
            "schedule": metering_tick_seconds,
            # A tick that waited behind a slow one adds nothing.
            "options": {"expires": metering_tick_seconds},
        },
        "expiring-credit": {
            "task": "billing.tell_expiring_credit",
            "schedule": 3600,
            "options": {"expires": 3600},
        },
        "invoice-periods": {
            "task": "invoices.queue_due_periods",
            "schedule": 600,
            "options": {"expires": 600},
        },
        "invoice-files": {"task": "invoices.queue_files", "schedule": 300, "options": {"expires": 300}},
        "vat-checks": {"task": "invoices.queue_vat_checks", "schedule": 3600, "options": {"expires": 3600}},
        "invite-mails": {"task": "organizations.sweep_invites", "schedule": 300, "options": {"expires": 300}},
        "mails": {"task": "notifications.sweep_mails", "schedule": 30, "options": {"expires": 30}},
        "account-requests": {"task": "identity.sweep_requests", "schedule": 300, "options": {"expires": 300}},
        "guesses-purge": {"task": "limits.purge_guesses", "schedule": 3600, "options": {"expires": 3600}},
        "audit-seal": {"task": "audit.seal", "schedule": 60, "options": {"expires": 60}},
        "stripe-events": {"task": "payments.process_events", "schedule": 30, "options": {"expires": 30}},
        "payments-sweep": {"task": "payments.sweep", "schedule": 60, "options": {"expires": 60}},
        "invoice-collection": {"task": "payments.collect_due", "schedule": 600, "options": {"expires": 600}},
        "stripe-reconciliation": {"task": "payments.reconcile", "schedule": 600, "options": {"expires": 600}},
        # By the clock: a beat that is restarted every day would never come to the end of an interval.
        "stripe-reconciliation-daily": {
            "task": "payments.reconcile_day",
            "schedule": crontab(hour=4, minute=30),
        },
        "stripe-report-daily": {"task": "payments.report_day", "schedule": crontab(hour=5, minute=30)},
        "idempotency-purge": {"task": "idempotency.purge", "schedule": 3600, "options": {"expires": 3600}},
    }

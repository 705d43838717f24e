"""Payments in the staff admin: to read; a change is an action with its own permission, a reason and a message."""

from apps.payments.admin import cards, collecting, disputes, events, paying, reconciling

__all__ = ["cards", "collecting", "disputes", "events", "paying", "reconciling"]

"""Queueing mails with the change that they report, and sending them until the server takes them."""

from __future__ import annotations

import smtplib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.core.mail import mailers
from django.db import transaction
from django.db.models import CharField, F, Q, QuerySet, Value
from django.db.models.functions import Cast, Concat
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core import correlation, jobs
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.notifications.models import Mail, MailState
from apps.notifications.rendering import Fact, message
from apps.outbox import services as outbox

logger = structlog.get_logger(__name__)

# 30 s, 2 min, 8 min … 8.5 h after each failure: a server may be away for half a day.
ATTEMPTS_MAX = 7
RETRY_FIRST = timedelta(seconds=30)
RETRY_FACTOR = 4
# Longer than a task may run: whoever holds a mail and dies loses it to the next.
LEASE = timedelta(minutes=5)
SWEPT_AT_ONCE = 500
_PERMANENT = 500  # SMTP: 5xx will not change by trying again.
# Mails of these apps say what an organization owes, paid or may still use.
_OF_THE_BOOKS = ("billing/", "invoices/", "payments/")


class MailErased(Conflict):
    """The person whom the mail was for is gone, and with them whom it went to and what it said."""

    code = "mail_erased"
    default_message = _("The account of the recipient was deleted, so this mail cannot be sent again.")


@transaction.atomic
def queue_mail(
    *,
    template: str,
    to: Sequence[str],
    context: Mapping[str, Fact],
    organization_id: UUID | None = None,
    user_id: UUID | None = None,
    cause: str,
    now: datetime,
) -> None:
    """Write one mail per recipient in the caller's transaction; they are sent after the commit.

    template: `<app>/mail/<name>`, the start of its three files' names.
    context: texts, numbers and lists of them; moments as ISO 8601. Never a secret: rows are kept.
    cause: unique with the recipient, so that what is done twice mails once; begins with its app's name.
    """
    assert all(_is_fact(value) for value in context.values()), f"{template}: facts are plain JSON"
    recipients = dict.fromkeys(address.strip().lower() for address in to if address.strip())
    Mail.objects.bulk_create(
        [
            Mail(
                organization_id=organization_id,
                user_id=user_id,
                template=template,
                recipient=recipient,
                context=dict(context),
                cause=cause,
                next_attempt_at=now,
                correlation_id=correlation.current(),
                created_at=now,
            )
            for recipient in recipients
        ],
        ignore_conflicts=True,
    )
    rows = Mail.objects.filter(cause=cause, recipient__in=recipients, state=MailState.QUEUED, attempts=0)
    for mail_id in rows.order_by("pk").values_list("pk", flat=True):
        jobs.enqueue("notifications.send_mail", mail_id=mail_id)


def deliver_mail(*, template: str, to: Sequence[str], context: Mapping[str, Fact]) -> None:
    """Render and send at once, to each recipient a mail of their own; nothing is stored.

    For mails with a secret link, from a task that makes the secret again. Raises what the mail server raises.
    """
    recipients = dict.fromkeys(address.strip() for address in to if address.strip())
    mailers.default.send_messages([message(template, recipient, context) for recipient in recipients])


def send_mail(*, mail_id: UUID, now: datetime) -> None:
    """Try to send a waiting mail once; a failure is noted with the moment of the next attempt.

    Call it outside any transaction. Two at once: one sends. A crash between the server's yes and ours mails twice,
    under the same Message-ID.
    """
    claimed = Mail.objects.due(now).filter(pk=mail_id)
    if not claimed.update(attempts=F("attempts") + 1, next_attempt_at=now + LEASE):
        return
    mail = Mail.objects.get(pk=mail_id)
    try:
        ready = message(mail.template, mail.recipient, mail.context, key=str(mail.id))
        mailers.default.send_messages([ready])
    except Exception as error:  # noqa: BLE001  Whatever is wrong, the row says so and waits for the next attempt.
        _note_failure(mail, error, now)
    else:
        Mail.objects.filter(pk=mail_id).update(state=MailState.SENT, sent_at=now, error="")
    _erase(Mail.objects.filter(pk=mail_id, erased_once_over=True))


@transaction.atomic
def forget_recipient(*, address: str, user_id: UUID) -> None:
    """Erase a person from the mails to them: who got it and its facts. What still waits is sent, then erased.

    That something was sent, what and when, stays; so does whole what an organization was told of its money, which
    belongs to its books, whomever it named to receive it.
    """
    theirs = Mail.objects.filter(Q(recipient=address.lower()) | Q(user_id=user_id))
    for prefix in _OF_THE_BOOKS:
        theirs = theirs.exclude(template__startswith=prefix)
    theirs.update(erased_once_over=True)
    _erase(theirs)


def _erase(mails: QuerySet[Mail]) -> None:
    nobody = Concat(Cast("id", CharField()), Value("@erased.invalid"))
    mails.exclude(state=MailState.QUEUED).update(recipient=nobody, context={}, error="")


def sweep_mails(*, now: datetime) -> int:
    """Queue the mails whose time has come, whether a message was lost or an attempt failed; return how many."""
    due = list(Mail.objects.due(now).values_list("pk", flat=True)[:SWEPT_AT_ONCE])
    for mail_id in due:
        jobs.enqueue("notifications.send_mail", mail_id=mail_id)
    return len(due)


@transaction.atomic
def send_again(*, actor: Actor, mail_id: UUID, now: datetime) -> Mail:
    """Make a mail wait for sending once more, whatever became of it. Raises MailErased."""
    mail = Mail.objects.select_for_update(no_key=True).get(pk=mail_id)
    if mail.erased_once_over:
        raise MailErased
    before = mail.state
    mail.state, mail.attempts, mail.next_attempt_at, mail.sent_at = MailState.QUEUED, 0, now, None
    mail.save(update_fields=["state", "attempts", "next_attempt_at", "sent_at"])
    diff = {"state": [before, mail.state], "recipient": mail.recipient}
    audit.record(actor=actor, action="mail.sent_again", target=mail, diff=diff)
    outbox.publish("notifications.mail_sent_again", {"id": mail.id}, organization_id=mail.organization_id)
    jobs.enqueue("notifications.send_mail", mail_id=mail.id)
    return mail


def _note_failure(mail: Mail, error: Exception, now: datetime) -> None:
    reason = f"{type(error).__name__}: {error}"[:500]
    given_up = mail.attempts >= ATTEMPTS_MAX or _is_permanent(error)
    wait = RETRY_FIRST * RETRY_FACTOR ** (mail.attempts - 1)
    Mail.objects.filter(pk=mail.pk).update(
        state=MailState.FAILED if given_up else MailState.QUEUED, next_attempt_at=now + wait, error=reason
    )
    logger.warning("mail_failed", mail=str(mail.pk), template=mail.template, given_up=given_up, reason=reason)


def _is_permanent(error: Exception) -> bool:
    """Return whether the server has refused this mail for good."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= _PERMANENT for code, _reply in error.recipients.values())
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return False  # The operator's mistake, not the mail's.
    return isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= _PERMANENT


def _is_fact(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(part, (str, int)) for part in value)
    return value is None or isinstance(value, (str, int))

"""Compare Stripe with us, both ways: fetch the events that never came, and list the money on which we disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import batched
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from apps.audit import services as audit
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.identity.models import User
from apps.notifications import services as notifications
from apps.outbox import services as outbox
from apps.payments import gateway
from apps.payments.gateway import DisputeAnswer, Gateway, Intent, RefundAnswer
from apps.payments.models import (
    Difference,
    DifferenceKind,
    Dispute,
    EventState,
    Payment,
    PaymentState,
    Reconciliation,
    Refund,
    RefundState,
    StripeEvent,
)
from apps.payments.services import applying, disputes, inbox, refunds

logger = structlog.get_logger(__name__)

EVENTS_BACK = timedelta(hours=72)
EVENTS_OVERLAP = timedelta(hours=2)  # What Stripe may list late.
COMPARED_AT_ONCE = 100
SETTLES_WITHIN = timedelta(minutes=5)  # What is younger may still be on its way to us.
_BY_ITSELF = "reconciliation"
_MAILED_MAX = 20


class DifferenceResolved(Conflict):
    """Somebody has resolved it already, or it agrees by now."""

    code = "difference_resolved"
    default_message = gettext_lazy("This difference is resolved already.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    kind: DifferenceKind
    object_id: str
    detail: str


type _Compared = tuple[str, _Found | None]


def fetch_missing_events(*, now: datetime, since: datetime | None = None) -> int:
    """Store the events since a moment, or of the last 72 hours, that Stripe has and we have not; return how many."""
    fetched = 0
    since = since or now - EVENTS_BACK
    for notes in batched(gateway.current().events(since=since, types=inbox.EVENT_TYPES), COMPARED_AT_ONCE):
        known = set(
            StripeEvent.objects.filter(pk__in=[note.id for note in notes]).values_list("pk", flat=True)
        )
        fetched += sum(inbox.take_note(note, now=now) for note in notes if note.id not in known)
    return fetched


def _events_since(now: datetime) -> datetime:
    """Return from when on events may be missing: shortly before the end of what was compared last."""
    ends = Reconciliation.objects.filter(finished_at__isnull=False, until__lt=now).aggregate(
        last=Max("until")
    )
    return max(now - EVENTS_BACK, ends["last"] - EVENTS_OVERLAP) if ends["last"] else now - EVENTS_BACK


def reconcile(*, since: datetime, now: datetime, until: datetime | None = None) -> Reconciliation:
    """Compare everything of a span of time and note each difference; those that agree again are closed.

    Only what is older than five minutes counts, so that what is still on its way is no difference. The events that
    came since the last comparison are fetched first.
    """
    until = min(until or now, now - SETTLES_WITHIN)
    run = Reconciliation.objects.create(since=since, until=until)
    run.events_fetched = fetch_missing_events(now=now, since=_events_since(now))
    inbox.process_events(now=now)
    source = gateway.current()
    compared: set[str] = set()
    found: list[_Found] = []
    for compare in (_intents, _refunds, _disputes):
        for object_id, difference in compare(source, since, until, now):
            compared.add(object_id)
            if difference is not None:
                found.append(difference)
    _note(found, compared, now=now)
    run.compared, run.differences, run.finished_at = len(compared), len(found), now
    run.save()
    return run


def _intents(source: Gateway, since: datetime, until: datetime, now: datetime) -> Iterator[_Compared]:
    """Yield each payment of either side, and None where both agree."""
    seen = set()
    theirs = source.intents(since=since, until=until)
    for intent_id, difference in _compare(
        theirs, _payments, _intent_difference, source.intent, applying.sync_intent, now=now
    ):
        seen.add(intent_id)
        yield intent_id, difference
    ours = Payment.objects.filter(
        created_at__gte=since, created_at__lt=until, intent_id__isnull=False, state=PaymentState.SUCCEEDED
    ).exclude(intent_id__in=seen)
    for payment in ours:
        # Made shortly before the span, perhaps: asked for by its id before it is called missing.
        assert payment.intent_id is not None, "filtered"
        yield payment.intent_id, _ask(source, payment)


def _payments(intent_ids: Sequence[str]) -> Mapping[str, Payment]:
    return {str(row.intent_id): row for row in Payment.objects.filter(intent_id__in=intent_ids)}


def _ask(source: Gateway, payment: Payment) -> _Found | None:
    assert payment.intent_id is not None, "filtered"
    try:
        return _intent_difference(source.intent(payment.intent_id), payment)
    except gateway.NotAtStripe:
        return _Found(
            kind=DifferenceKind.NOT_THERE,
            object_id=payment.intent_id,
            detail=_("Payment %(id)s was credited.") % {"id": payment.id},
        )


def _intent_difference(intent: Intent, payment: Payment | None) -> _Found | None:
    is_paid = intent.status == "succeeded"
    if payment is None:
        if not is_paid:
            return None  # Nothing was paid, so nothing can be missing.
        return _Found(
            kind=DifferenceKind.NOT_HERE,
            object_id=intent.id,
            detail=_("%(minor)d minor units of %(currency)s were paid.")
            % {"minor": intent.received_minor, "currency": intent.currency},
        )
    if (payment.state == PaymentState.SUCCEEDED) != is_paid:
        return _states_differ(intent.id, intent.status, payment.state)
    if is_paid and intent.received_minor != payment.amount_minor:
        detail = _("Stripe received %(theirs)d, we credited %(ours)d.") % {
            "theirs": intent.received_minor,
            "ours": payment.amount_minor,
        }
        return _Found(kind=DifferenceKind.AMOUNT, object_id=intent.id, detail=detail)
    return None


def _refunds(source: Gateway, since: datetime, until: datetime, now: datetime) -> Iterator[_Compared]:
    seen = set()

    def compare(answers: Iterable[RefundAnswer]) -> Iterator[_Compared]:
        return _compare(answers, _sent, _refund_difference, source.refund, refunds.sync_refund, now=now)

    for refund_id, difference in compare(source.refunds(since=since, until=until)):
        seen.add(refund_id)
        yield refund_id, difference
    ours = Refund.objects.filter(created_at__gte=since, created_at__lt=until, refund_id__isnull=False)
    for refund in ours.exclude(refund_id__in=seen):
        assert refund.refund_id is not None, "filtered"
        try:
            answer = source.refund(refund.refund_id)
        except gateway.NotAtStripe:
            detail = _("Refund %(id)s was sent.") % {"id": refund.id}
            missing = _Found(kind=DifferenceKind.NOT_THERE, object_id=refund.refund_id, detail=detail)
            yield refund.refund_id, missing
        else:
            yield from compare([answer])


def _sent(refund_ids: Sequence[str]) -> Mapping[str, Refund]:
    return {str(row.refund_id): row for row in Refund.objects.filter(refund_id__in=refund_ids)}


def _disputes(source: Gateway, since: datetime, until: datetime, now: datetime) -> Iterator[_Compared]:
    theirs = source.disputes(since=since, until=until)
    yield from _compare(
        theirs, _known_disputes, _dispute_difference, source.dispute, disputes.sync_dispute, now=now
    )


def _known_disputes(dispute_ids: Sequence[str]) -> Mapping[str, Dispute]:
    return {row.dispute_id: row for row in Dispute.objects.filter(dispute_id__in=dispute_ids)}


def _compare[Answer: (Intent, RefundAnswer, DisputeAnswer)](
    answers: Iterable[Answer],
    rows_of: Callable[[Sequence[str]], Mapping[str, Any]],
    difference_of: Callable[[Answer, Any], _Found | None],
    ask: Callable[[str], Answer],
    sync: Callable[..., object],
    *,
    now: datetime,
) -> Iterator[_Compared]:
    """Yield how each answer differs from its row, one query for a page of them.

    Stripe can fail to make an event, so a difference may only be news that nobody brought: where both sides differ,
    what Stripe says is taken over, and what it then says is compared again.
    """
    for page in batched(answers, COMPARED_AT_ONCE):
        rows = rows_of([answer.id for answer in page])
        for answer in page:
            difference = difference_of(answer, rows.get(answer.id))
            if difference is not None:
                news = answer
                try:
                    sync(answer.id, now=now)
                    news = ask(answer.id)
                except Exception as error:
                    logger.warning("reconciliation_sync_failed", object=answer.id, exc_info=error)
                difference = difference_of(news, rows_of([answer.id]).get(answer.id))
            yield answer.id, difference


def _refund_difference(answer: RefundAnswer, refund: Refund | None) -> _Found | None:
    is_gone = answer.status in {"failed", "canceled"}
    if refund is None:
        detail = _("%(minor)d minor units went back.") % {"minor": answer.amount_minor}
        missing = _Found(kind=DifferenceKind.NOT_HERE, object_id=answer.id, detail=detail)
        return None if is_gone else missing
    if refunds.state_of(answer) not in (None, refund.state):
        return _states_differ(answer.id, answer.status, refund.state)
    return _amounts_differ(answer.id, answer.amount_minor, refund.amount_minor)


def _dispute_difference(answer: DisputeAnswer, dispute: Dispute | None) -> _Found | None:
    if dispute is None:
        detail = _("%(minor)d minor units are disputed.") % {"minor": answer.amount_minor}
        return _Found(kind=DifferenceKind.NOT_HERE, object_id=answer.id, detail=detail)
    ours = (dispute.withdrawn_at is not None, dispute.reinstated_at is not None)
    is_news = answer.status != dispute.status and disputes.is_known(answer.status)
    if ours != (answer.withdrawn, answer.reinstated) or is_news:
        return _states_differ(answer.id, answer.status, dispute.status)
    return _amounts_differ(answer.id, answer.amount_minor, dispute.amount_minor)


def _states_differ(object_id: str, theirs: str, ours: str) -> _Found:
    detail = _("Stripe says %(theirs)s, we say %(ours)s.") % {"theirs": theirs, "ours": ours}
    return _Found(kind=DifferenceKind.STATE, object_id=object_id, detail=detail)


def _amounts_differ(object_id: str, theirs: int, ours: int) -> _Found | None:
    if theirs == ours:
        return None
    detail = _("Stripe says %(theirs)d minor units, we say %(ours)d.") % {"theirs": theirs, "ours": ours}
    return _Found(kind=DifferenceKind.AMOUNT, object_id=object_id, detail=detail)


@transaction.atomic
def _note(found: list[_Found], compared: set[str], *, now: datetime) -> None:
    """Open a row for each difference once, and close those of what was compared that are none any more.

    compared: the ids that this run looked at. A difference of an older object stays until somebody looks at that.
    """
    for difference in found:
        explained = Difference.objects.filter(
            kind=difference.kind,
            object_id=difference.object_id,
            detail=difference.detail[:500],
            resolved_at__isnull=False,
        ).exclude(resolved_by=_BY_ITSELF)
        if explained.exists():
            continue  # Staff have said why it stays.
        row, created = Difference.objects.get_or_create(
            kind=difference.kind,
            object_id=difference.object_id,
            resolved_at=None,
            defaults={"detail": difference.detail[:500], "found_at": now, "seen_at": now},
        )
        if not created:
            row.seen_at, row.detail = now, difference.detail[:500]
            row.save(update_fields=["seen_at", "detail"])
        else:
            outbox.publish(
                "payments.difference_found", {"object": difference.object_id, "kind": str(difference.kind)}
            )
    gone = [
        row.pk
        for row in Difference.objects.filter(resolved_at=None, seen_at__lt=now)
        if row.object_id in compared
    ]
    Difference.objects.filter(pk__in=gone, resolved_at=None).update(
        resolved_at=now, resolved_by=_BY_ITSELF, reason=_("Both sides agree now.")
    )


@transaction.atomic
def resolve_difference(*, actor: Actor, difference_id: UUID, reason: str, now: datetime) -> Difference:
    """Close a difference with a reason; it opens again only if it changes."""
    row = Difference.objects.select_for_update(no_key=True).get(pk=difference_id)
    if row.resolved_at is not None:
        raise DifferenceResolved
    row.resolved_at, row.resolved_by, row.reason = now, actor.label, reason
    row.save(update_fields=["resolved_at", "resolved_by", "reason"])
    diff = {"object": row.object_id, "kind": str(row.kind), "detail": row.detail}
    audit.record(actor=actor, action="difference.resolved", diff=diff, reason=reason)
    outbox.publish("payments.difference_resolved", diff)
    return row


@transaction.atomic
def tell_operator(*, now: datetime) -> bool:
    """Mail the day's report if it asks for somebody, once a day; return whether it does."""
    found = report()
    if not found.asks_for_somebody:
        return False
    facts = [
        ngettext("%(n)d difference with Stripe", "%(n)d differences with Stripe", found.open_differences),
        ngettext("%(n)d event given up", "%(n)d events given up", found.dead_events),
        ngettext("%(n)d dispute to answer", "%(n)d disputes to answer", found.open_disputes),
    ]
    numbers = (found.open_differences, found.dead_events, found.open_disputes)
    rows = Difference.objects.filter(resolved_at=None).order_by("-found_at", "-id")[:_MAILED_MAX]
    notifications.queue_mail(
        template="payments/mail/reconciliation",
        to=settings.OPERATOR_EMAILS or _superusers(),
        context={
            "day": f"{now:%Y-%m-%d}",
            "facts": [fact % {"n": number} for fact, number in zip(facts, numbers, strict=True) if number],
            "differences": [f"{row.object_id}: {row.get_kind_display()}. {row.detail}" for row in rows],
            "url": f"{settings.PUBLIC_URL}{reverse('admin:payments_reconciliation_report')}",
        },
        cause=f"payments.reconciliation:{now:%Y-%m-%d}",
        now=now,
    )
    return True


def _superusers() -> list[str]:
    rows = User.objects.filter(is_active=True, is_staff=True, is_superuser=True).order_by("pk")
    return list(rows.values_list("email", flat=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How Stripe and we stand: for the staff's page and the daily mail."""

    last: Reconciliation | None
    open_differences: int
    waiting_events: int
    dead_events: int
    open_disputes: int
    pending_refunds: int

    @property
    def asks_for_somebody(self) -> bool:
        """Whether there is something that only people can settle; a refund's asker is mailed elsewhere."""
        return bool(self.open_differences or self.dead_events or self.open_disputes)


def report() -> Report:
    """Return how reconciliation stands now."""
    return Report(
        last=Reconciliation.objects.filter(finished_at__isnull=False).order_by("-finished_at", "-id").first(),
        open_differences=Difference.objects.filter(resolved_at=None).count(),
        waiting_events=StripeEvent.objects.filter(state=EventState.RECEIVED).count(),
        dead_events=StripeEvent.objects.filter(state=EventState.DEAD).count(),
        open_disputes=Dispute.objects.filter(status__in=disputes.TO_ANSWER).count(),
        pending_refunds=Refund.objects.filter(state=RefundState.REQUESTED).count(),
    )

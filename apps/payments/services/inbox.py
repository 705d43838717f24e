"""The inbox of Stripe's events: received is one fact, processed another; nothing that arrives is lost or done twice."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F

from apps.audit import services as audit
from apps.core import failpoints, jobs
from apps.core.actor import Actor
from apps.core.errors import InvalidRequest
from apps.outbox import services as outbox
from apps.payments import gateway, signatures
from apps.payments.gateway import EventNote, GatewayTimeout, NotAtStripe
from apps.payments.models import EventState, StripeEvent
from apps.payments.services import applying, cards, disputes, refunds

logger = structlog.get_logger(__name__)

ATTEMPTS_MAX = 10
LEASE = timedelta(seconds=90)
RETRY_FIRST = timedelta(seconds=5)  # Then 10 s, 20 s … 43 min: an hour and a half in all.
CLAIMED_AT_ONCE = 20
MARKED_WITHIN_SECONDS = 1.0  # While Stripe is slow, what is done is not left to a lease that runs out.
_ERROR_LENGTH_MAX = 2_000
_ID_LENGTH_MAX, _TYPE_LENGTH_MAX, _ACCOUNT_LENGTH_MAX = 128, 96, 64


class Unverifiable(InvalidRequest):
    """A webhook that is not Stripe's, not now, not whole or not for this account; nothing of it is stored."""

    code = "webhook_unverifiable"


class _Sent(msgspec.Struct):
    """What every event says."""

    id: str
    type: str
    created: int
    livemode: bool
    data: dict[str, Any]
    object: str = ""
    account: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What one run over the inbox did."""

    processed: int
    failed: int


def receive(*, body: bytes, signature: str, now: datetime) -> bool:
    """Store an event that Stripe signed and queue its processing; return whether it is new.

    Raises Unverifiable, having stored nothing: forged, too old or too new, not UTF-8, no event of ours.
    """
    if not signatures.is_signed(body, signature, settings.STRIPE_WEBHOOK_SECRETS, now=now):
        raise Unverifiable
    note = _read(body)
    return _store(note, source="webhook", now=now)


def take_note(note: EventNote, *, now: datetime) -> bool:
    """Store an event that was found by asking, as if its webhook had come; return whether it is new."""
    return _store(note, source="list", now=now)


def _read(body: bytes) -> EventNote:
    try:
        sent = _decoder.decode(body)
        object_id = sent.data["object"]["id"]
        happened_at = datetime.fromtimestamp(sent.created, UTC)
    except (
        msgspec.MsgspecError,
        UnicodeDecodeError,
        RecursionError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        OSError,  # Of a moment that the system's clock cannot hold.
    ):
        raise Unverifiable from None
    if sent.object != "event" or not isinstance(object_id, str) or "\x00" in sent.id + sent.type + object_id:
        raise Unverifiable
    if sent.livemode != gateway.is_live_key(settings.STRIPE_SECRET_KEY):
        raise Unverifiable
    if settings.STRIPE_ACCOUNT and sent.account not in (None, settings.STRIPE_ACCOUNT):
        raise Unverifiable
    return EventNote(
        id=sent.id,
        event_type=sent.type,
        object_id=object_id,
        account=sent.account or "",
        is_live=sent.livemode,
        happened_at=happened_at,
        body=body,
    )


def _store(note: EventNote, *, source: str, now: datetime) -> bool:
    event = StripeEvent(
        id=note.id[:_ID_LENGTH_MAX],
        event_type=note.event_type[:_TYPE_LENGTH_MAX],
        object_id=note.object_id[:_ID_LENGTH_MAX],
        account=note.account[:_ACCOUNT_LENGTH_MAX],
        is_live=note.is_live,
        body=note.body,
        source=source,
        next_attempt_at=now,
        happened_at=note.happened_at,
        received_at=now,
    )
    try:
        with transaction.atomic():
            event.save(force_insert=True)
            jobs.enqueue("payments.process_events")
    except IntegrityError:
        return False  # It came before, or twice at once and the other one stored it.
    return True


# --- Processing ---

_HANDLERS: tuple[tuple[str, Callable[..., object]], ...] = (
    ("checkout.session.", lambda object_id, now: _session(object_id, now=now)),
    ("payment_intent.", applying.sync_intent),
    ("refund.", refunds.sync_refund),
    ("charge.refund.updated", refunds.sync_refund),
    ("charge.dispute.", disputes.sync_dispute),
    ("payment_method.", cards.sync_card),
)
EVENT_TYPES = (
    "checkout.session.completed",
    "checkout.session.expired",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.canceled",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    "charge.dispute.closed",
    "payment_method.attached",
    "payment_method.detached",
    "payment_method.updated",
    "payment_method.automatically_updated",
)


class _Failed(Exception):
    """An event could not be processed now; why is its cause."""


def _session(session_id: str, *, now: datetime) -> object:
    return cards.sync_setup_session(session_id, now=now) or applying.sync_session(session_id, now=now)


def process_events(
    *, now: datetime, clock: Callable[[], datetime] | None = None, limit: int = 1_000
) -> Drained:
    """Process waiting events until there are none or `limit` were done; several processes share the work.

    Events are claimed some at a time, each is asked about at Stripe outside of any transaction, and they are marked as
    done together after their effects are committed: a crash in between does them again, which changes nothing.
    """
    processed = failed = 0
    while processed + failed < limit:
        moment = clock() if clock else now
        claimed = _claim(min(CLAIMED_AT_ONCE, limit - processed - failed), now=moment)
        if not claimed:
            break
        run = _process_claimed(claimed, clock=clock or (lambda: now))
        processed, failed = processed + run.processed, failed + run.failed
        if run.processed + run.failed < len(claimed):
            break  # Stripe does not answer; the beat comes back soon enough.
    return Drained(processed=processed, failed=failed)


@transaction.atomic
def _claim(count: int, *, now: datetime) -> list[StripeEvent]:
    due = StripeEvent.objects.due(now).order_by("next_attempt_at", "id")
    claimed = list(due.defer("body").select_for_update(skip_locked=True, no_key=True)[:count])
    StripeEvent.objects.filter(pk__in=[event.pk for event in claimed]).update(next_attempt_at=now + LEASE)
    return claimed


def _process_claimed(claimed: Sequence[StripeEvent], *, clock: Callable[[], datetime]) -> Drained:
    """Process events one after the other and mark those that are done, together; return how many of each there are.

    Where Stripe does not answer, the events behind are given back untried: each would only wait for it in vain.
    """
    processed = failed = 0
    waiting: dict[EventState, list[str]] = defaultdict(list)
    marked_at = time.monotonic()
    try:
        for event in claimed:
            try:
                state = _process(event, now=clock())
            except _Failed as failure:
                failed += 1
                if isinstance(failure.__cause__, GatewayTimeout):
                    break
            else:
                waiting[state].append(event.pk)
                processed += 1
            if time.monotonic() - marked_at >= MARKED_WITHIN_SECONDS:
                _mark(waiting, now=clock())
                waiting.clear()
                marked_at = time.monotonic()
    finally:
        _mark(waiting, now=clock())
        _give_back(claimed[processed + failed :], now=clock())
    return Drained(processed=processed, failed=failed)


def _process(event: StripeEvent, *, now: datetime) -> EventState:
    """Do what an event asks for and return its state to mark; raises _Failed, which is written by then."""
    handler = next((handle for prefix, handle in _HANDLERS if event.event_type.startswith(prefix)), None)
    if handler is None:
        return EventState.IGNORED
    try:
        found = handler(event.object_id, now=now)
    except NotAtStripe as error:
        if not event.event_type.startswith("payment_method."):
            _fail(event, error, now=now)
            raise _Failed from error
        found = None
    except Exception as error:  # Whatever is wrong, the event waits for its next attempt.
        _fail(event, error, now=now)
        raise _Failed from error
    failpoints.reach("payments.before_processed")
    is_ours = found is not None or event.event_type.startswith("payment_method.")
    return EventState.PROCESSED if is_ours else EventState.IGNORED


def _mark(done: Mapping[EventState, Sequence[str]], *, now: datetime) -> None:
    for state, ids in done.items():
        StripeEvent.objects.filter(pk__in=ids, state=EventState.RECEIVED).update(
            state=state, attempts=F("attempts") + 1, processed_at=now, last_error=""
        )


def _give_back(untried: Sequence[StripeEvent], *, now: datetime) -> None:
    if untried:
        rows = StripeEvent.objects.filter(pk__in=[event.pk for event in untried], state=EventState.RECEIVED)
        rows.update(next_attempt_at=now)


def _fail(event: StripeEvent, error: Exception, *, now: datetime) -> None:
    event.attempts += 1
    is_dead = event.attempts >= ATTEMPTS_MAX
    wait = RETRY_FIRST * 2 ** (event.attempts - 1)
    StripeEvent.objects.filter(pk=event.pk, state=EventState.RECEIVED).update(
        attempts=event.attempts,
        state=EventState.DEAD if is_dead else EventState.RECEIVED,
        next_attempt_at=now + wait,
        last_error=f"{type(error).__name__}: {error}"[:_ERROR_LENGTH_MAX],
    )
    logger.warning(
        "stripe_event_failed", id=event.pk, type=event.event_type, attempts=event.attempts, exc_info=error
    )


@transaction.atomic
def replay(*, actor: Actor, event_id: str, reason: str, now: datetime) -> StripeEvent:
    """Process an event once more, whatever became of it; its effects happen once all the same."""
    event = StripeEvent.objects.select_for_update(no_key=True).get(pk=event_id)
    before, event.state, event.attempts, event.next_attempt_at = event.state, EventState.RECEIVED, 0, now
    event.save(update_fields=["state", "attempts", "next_attempt_at"])
    diff = {"event": event.pk, "type": event.event_type, "state": [before, str(event.state)]}
    audit.record(actor=actor, action="stripe_event.replayed", diff=diff, reason=reason)
    outbox.publish("payments.stripe_event_replayed", diff)
    jobs.enqueue("payments.process_events")
    return event


_decoder = msgspec.json.Decoder(_Sent)

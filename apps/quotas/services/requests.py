"""Asking for more, and the decision."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.notifications import services as notifications
from apps.organizations import selectors as organizations
from apps.organizations.models import Organization
from apps.outbox import services as outbox
from apps.quotas import selectors
from apps.quotas.models import Quota, QuotaRequest, RequestState, Target
from apps.quotas.services.overrides import check_expiry, override_limit
from apps.quotas.services.targets import check_limit, target_of

TEXT_LENGTH_MAX = 1000


class AlreadyRequested(Conflict):
    """A request for the same quota waits for its decision."""

    code = "quota_already_requested"
    default_message = gettext_lazy("This is asked for already. Withdraw that request to make another one.")


class AlreadyDecided(Conflict):
    """The request was approved, denied or withdrawn; the first decision stands."""

    code = "quota_request_decided"
    default_message = gettext_lazy("This request has been decided already. Look at it again.")


class NotNeeded(Conflict):
    """The organization may use as much already."""

    code = "quota_not_needed"
    default_message = gettext_lazy("You may use as much already. Ask for more than the limit.")


@transaction.atomic
def request_quota(
    *,
    actor: Actor,
    organization: Organization,
    quota: str,
    requested: int,
    reason: str,
    family: str = "",
    region: str = "",
    now: datetime,
) -> QuotaRequest:
    """Ask for a higher limit. Raises NotNeeded for what is allowed already, AlreadyRequested while one waits."""
    target = target_of(quota, family, region)
    check_limit(target, requested, path="requested")
    if not reason.strip() or len(reason) > TEXT_LENGTH_MAX:
        message = _("Say in up to 1000 characters what it is for.")
        raise ValidationFailed(fields=[FieldError(path="reason", code="required", message=message)])
    limit = _limit_now(organization, target, now)
    if limit is None or requested <= limit:
        raise NotNeeded(limit=limit)
    made = QuotaRequest(
        organization=organization,
        quota=target.quota,
        family=target.family,
        region=target.region,
        requested=requested,
        limit_then=limit,
        reason=reason.strip(),
        requested_by_id=actor.person_id if actor.kind == ActorKind.USER else None,
        requested_by_label=actor.label,
        created_at=now,
    )
    try:
        with transaction.atomic():
            made.save(force_insert=True)
    except IntegrityError as error:
        if "quotas_quotarequest_one_waiting" in str(error):
            raise AlreadyRequested from error
        raise
    _tell(actor, "quota_request.submitted", made)
    return made


@transaction.atomic
def approve_request(
    *,
    actor: Actor,
    request: QuotaRequest,
    granted: int | None = None,
    expires_at: datetime | None = None,
    message: str = "",
    now: datetime,
) -> QuotaRequest:
    """Give what was asked for, or another number; it holds at once, until `expires_at` if given.

    Raises AlreadyDecided: of two decisions at once the first stands.
    """
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "staff decide"
    check_expiry(expires_at, now)
    # The organization first, as everywhere: the override locks it as well.
    organization = Organization.objects.select_for_update(no_key=True).get(pk=request.organization_id)
    request = _lock_waiting(request)
    request.granted = request.requested if granted is None else granted
    check_limit(request.target, request.granted, path="granted")
    request.expires_at = expires_at
    _decide(actor, request, RequestState.APPROVED, message, now)
    override_limit(
        actor=actor,
        organization=organization,
        target=request.target,
        value=request.granted,
        expires_at=expires_at,
        request=request,
        reason=message or request.reason,
        now=now,
    )
    return request


@transaction.atomic
def deny_request(*, actor: Actor, request: QuotaRequest, message: str, now: datetime) -> QuotaRequest:
    """Refuse a request, saying why. Raises AlreadyDecided."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "staff decide"
    if not message.strip():
        text = _("Say why; the customer reads it.")
        raise ValidationFailed(fields=[FieldError(path="message", code="required", message=text)])
    return _decide(actor, _lock_waiting(request), RequestState.DENIED, message, now)


@transaction.atomic
def withdraw_request(*, actor: Actor, request: QuotaRequest, now: datetime) -> QuotaRequest:
    """Take a request back. Raises AlreadyDecided."""
    return _decide(actor, _lock_waiting(request), RequestState.WITHDRAWN, "", now)


def _limit_now(organization: Organization, target: Target, now: datetime) -> int | None:
    """Return the limit that holds for a target; a narrower one than any that exists is under the one around it."""
    limits = selectors.limits(organization_id=organization.id, now=now)
    if target.quota == Quota.CONCURRENT_GPUS and target not in limits:
        target = selectors.target_for(limits, target.family, target.region)
    return limits[target].value


def _lock_waiting(request: QuotaRequest) -> QuotaRequest:
    request = QuotaRequest.objects.select_for_update(no_key=True).get(pk=request.pk)
    if request.state != RequestState.SUBMITTED:
        raise AlreadyDecided(state=request.state)
    return request


def _decide(
    actor: Actor, request: QuotaRequest, state: RequestState, message: str, now: datetime
) -> QuotaRequest:
    request.state, request.message = state, message.strip()[:TEXT_LENGTH_MAX]
    request.decided_at, request.decided_by_label = now, actor.label
    request.save(
        update_fields=["state", "message", "decided_at", "decided_by_label", "granted", "expires_at"]
    )
    _tell(actor, f"quota_request.{state}", request)
    if state != RequestState.WITHDRAWN:
        _mail_decision(request, now)
    return request


def _mail_decision(request: QuotaRequest, now: datetime) -> None:
    """Tell whoever asked, or for a key whoever the organization's mails go to."""
    organization, asked_by = request.organization, request.requested_by
    notifications.queue_mail(
        template="quotas/mail/decision",
        to=[asked_by.email] if asked_by else organizations.billing_recipients(organization, now=now),
        context={
            "organization": organization.name,
            "quota": str(request.target),
            "approved": request.state == RequestState.APPROVED,
            "requested": f"{request.requested:,}",
            "granted": None if request.granted is None else f"{request.granted:,}",
            "expires_at": request.expires_at.isoformat() if request.expires_at else None,
            "message": request.message,
            "link": f"{settings.PUBLIC_URL}/app/{organization.slug}/quotas",
        },
        organization_id=organization.id,
        user_id=request.requested_by_id,
        cause=f"quotas:request:{request.id}:{request.state}",
        now=now,
    )


def _tell(actor: Actor, action: str, request: QuotaRequest) -> None:
    facts: dict[str, Any] = {
        "quota": request.quota,
        "family": request.family,
        "region": request.region,
        "requested": request.requested,
        "granted": request.granted,
        "expires_at": request.expires_at.isoformat() if request.expires_at else None,
    }
    audit.record(actor=actor, action=action, target=request, diff=facts, reason=request.message)
    outbox.publish(
        f"quotas.{action.replace('.', '_')}",
        {"id": request.id, **facts},
        organization_id=request.organization_id,
    )

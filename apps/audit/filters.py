"""The filters of the audit log; the page of the portal, the list and the export narrow alike."""

from __future__ import annotations

from uuid import UUID

from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters

from apps.audit.models import ACTOR_KINDS, AuditEvent, AuditEventQuerySet
from apps.core.http.filters import MomentFilter

_MOMENTS = {
    "from": MomentFilter(field_name="occurred_at", lookup_expr="gte"),
    "to": MomentFilter(field_name="occurred_at", lookup_expr="lt"),
}


class AuditEventFilters(
    # `from` is a keyword, so no class body can name it.
    type("Moments", (filters.FilterSet,), _MOMENTS)  # type: ignore[misc]  # A base made at run time.
):
    """Who, what, to what, with which credential, and when: from inclusive, to exclusive."""

    actor = filters.CharFilter(method="filter_actor", label=_("id or address"))
    actor_kind = filters.ChoiceFilter(choices=list(ACTOR_KINDS.items()))
    action = filters.CharFilter(
        method="filter_action", label=_("such as invite.created, or invite for all of them")
    )
    target = filters.CharFilter(field_name="target_id", label=_("id"))
    target_type = filters.CharFilter(label=_("such as organizations.invite"))
    credential = filters.UUIDFilter(field_name="credential_id")
    correlation_id = filters.CharFilter()
    created_from = MomentFilter(field_name="occurred_at", lookup_expr="gte")
    created_to = MomentFilter(field_name="occurred_at", lookup_expr="lt")

    def filter_actor(self, queryset: AuditEventQuerySet, _name: str, value: str) -> AuditEventQuerySet:
        try:
            return queryset.filter(actor_id=UUID(value))
        except ValueError:
            return queryset.filter(actor_label__iexact=value)

    def filter_action(self, queryset: AuditEventQuerySet, _name: str, value: str) -> AuditEventQuerySet:
        if "." in value:
            return queryset.filter(action=value)
        return queryset.filter(action__startswith=f"{value}.")

    class Meta:
        model = AuditEvent
        fields: tuple[str, ...] = ()

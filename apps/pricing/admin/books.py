"""Price books: a list of prices in one currency, with its versions."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.staff import ReadOnlyInline, ServiceAdmin, link_to, list_link, staff_actor
from apps.pricing import services
from apps.pricing.admin.imports import import_page
from apps.pricing.models import PriceBook, PriceBookVersion, VersionState


class VersionInline(ReadOnlyInline):
    model = PriceBookVersion
    fields = readonly_fields = ("opened", "state", "effective_from", "effective_to", "published_at")
    ordering = ("-number",)

    @admin.display(description=_("Version"))
    def opened(self, version: PriceBookVersion) -> SafeString | str:
        return link_to("pricing_pricebookversion", version.pk, str(version))


@admin.register(PriceBook)
class PriceBookAdmin(ServiceAdmin):
    list_display = (
        "name",
        "currency",
        "is_demonstration",
        "versions_count",
        "in_force",
        "assigned",
        "created_at",
    )
    list_filter = ("currency", "is_demonstration")
    search_fields = ("name", "id")
    ordering = ("name",)
    fields = ("name", "currency", "is_demonstration")
    inlines = (VersionInline,)
    actions = ("start_drafts",)
    change_list_template = "pricing/books.html"

    def get_urls(self) -> list[URLPattern]:
        """Add the page that imports a file."""
        page = partial(import_page, self.admin_site)
        return [
            path("import/", self.admin_site.admin_view(page), name="pricing_import"),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[PriceBook]:
        """Count what the list shows."""
        books: QuerySet[PriceBook] = super().get_queryset(request)
        current = Q(assignments__effective_to__isnull=True)
        return books.annotate(
            versions_total=Count("versions", distinct=True),
            assigned_total=Count("assignments", distinct=True, filter=current),
        ).prefetch_related("versions")

    def get_inlines(self, request: HttpRequest, obj: PriceBook | None = None) -> Any:
        return self.inlines if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: PriceBook | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: PriceBook | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: PriceBook, form: Any, change: bool) -> None:
        made = services.create_book(
            actor=staff_actor(request),
            name=obj.name,
            currency=obj.currency,
            is_demonstration=obj.is_demonstration,
            now=timezone.now(),
        )
        obj.pk = made.pk

    @admin.display(description=_("Versions"), ordering="versions_total")
    def versions_count(self, book: Any) -> SafeString:
        return list_link("pricing_pricebookversion", str(book.versions_total), book__id__exact=book.pk)

    @admin.display(description=_("In force"))
    def in_force(self, book: PriceBook) -> SafeString | str:
        now = timezone.now()
        for version in book.versions.all():
            started = version.effective_from is not None and version.effective_from <= now
            ended = version.effective_to is not None and version.effective_to <= now
            if version.state != VersionState.DRAFT and started and not ended:
                return link_to("pricing_pricebookversion", version.pk, str(version))
        return "–"

    @admin.display(description=_("Assigned to"), ordering="assigned_total")
    def assigned(self, book: Any) -> SafeString:
        return list_link("pricing_bookassignment", str(book.assigned_total), book__id__exact=book.pk)

    @admin.action(description=_("Start a draft from the newest version"), permissions=["add"])
    def start_drafts(self, request: HttpRequest, queryset: QuerySet[PriceBook]) -> None:
        """Copy the newest version of each book into a draft."""
        for book in queryset.order_by("pk"):
            draft = services.start_draft(actor=staff_actor(request), book=book, now=timezone.now())
            self.message_user(request, _now("%s is a draft now.") % draft, messages.SUCCESS)

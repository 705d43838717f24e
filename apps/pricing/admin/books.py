"""Price books: drafts are edited as a whole, published versions only read, compared, ended and added to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.staff import ServiceAdmin, link_to, list_link, staff_actor, take_step
from apps.pricing import selectors, services
from apps.pricing.admin.imports import import_page
from apps.pricing.diffs import Change, compare, describe
from apps.pricing.forms import TIER_FIELDS, CompareForm, HourForm, PriceForm, PriceFormSet, price_choices
from apps.pricing.models import (
    Price,
    PriceBook,
    PriceBookVersion,
    VersionState,
)
from apps.pricing.rows import row_of

# A form of more fields would pass Django's limit for one request; such drafts come from imports.
FIELDS_EDITED_MAX = 900
FIELDS_OF_A_ROW = 18
ROWS_SHOWN_MAX = 500
CHANGES_SHOWN_MAX = 500
TOUCHED_SHOWN_MAX = 50


class VersionInline(admin.TabularInline):
    model = PriceBookVersion
    fields = readonly_fields = ("opened", "state", "effective_from", "effective_to", "published_at")
    ordering = ("-number",)
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

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


class PriceInline(admin.StackedInline):
    """The rows of a draft, to be edited: each a line that opens, and works without JavaScript."""

    model = Price
    template = "pricing/prices_inline.html"
    form = PriceForm
    formset = PriceFormSet
    fields = (
        ("meter", "sku", "region", "model", "unit_price"),
        "tiers",
        ("package_size", "package_price", "free_units"),
    )
    ordering = ("meter", "sku", "region")
    extra = 1


class PublishedPriceInline(admin.TabularInline):
    """The rows of a version that was published, a line each."""

    model = Price
    fields = readonly_fields = ("meter", "sku", "region", "terms")
    ordering = ("meter", "sku", "region")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("Price"))
    def terms(self, price: Price) -> str:
        return describe(row_of(price))


@admin.register(PriceBookVersion)
class PriceBookVersionAdmin(ServiceAdmin):
    """A draft's rows are edited here; everything else about a version happens on a page of its own."""

    list_display = (
        "title",
        "book_link",
        "state",
        "effective_from",
        "effective_to",
        "prices_link",
        "published_at",
    )
    list_filter = ("state", ("book", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("book",)
    search_fields = ("book__name", "id", "checksum")
    date_hierarchy = "effective_from"
    ordering = ("book__name", "-number")
    fields = readonly_fields = (
        "book_link", "number", "state", "effective_from", "effective_to", "published_at", "checksum",
        "prices_link", "steps",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[PriceBookVersion]:
        """Count the rows of each version."""
        versions: QuerySet[PriceBookVersion] = super().get_queryset(request)
        return versions.annotate(prices_total=Count("prices"))

    def get_inlines(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ()
        if obj.state == VersionState.DRAFT:
            return (PriceInline,) if self._fields_of(obj) <= FIELDS_EDITED_MAX else ()
        return (PublishedPriceInline,) if obj.prices_total <= ROWS_SHOWN_MAX else ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        # Drafts start from a book, see its action.
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Without an object Django asks whether any version may be edited; only drafts can.
        return (obj is None or obj.state == VersionState.DRAFT) and super().has_change_permission(
            request, obj
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_publish_permission(self, request: HttpRequest) -> bool:
        """Return whether this staff user may put prices in force."""
        return bool(request.user.has_perm("pricing.publish_pricebookversion"))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Change nothing: a version has no field of its own that a form may set."""

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Hand the rows as they are on the page to the service, as one change."""
        kept = [one for one in formset.forms if one not in formset.deleted_forms and one.row is not None]
        formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []
        services.replace_prices(
            actor=staff_actor(request),
            version=form.instance,
            rows=[one.row for one in kept],
            now=timezone.now(),
        )

    def get_urls(self) -> list[URLPattern]:
        """Add a page for each step in a version's life."""
        steps = [
            path(
                f"<uuid:version_id>/{step}/", self.admin_site.admin_view(page), name=f"pricing_version_{step}"
            )
            for step, page in (
                ("publish", self.publish),
                ("discard", self.discard),
                ("retire", self.retire),
                ("add-price", self.add_price),
                ("compare", self.compare),
            )
        ]
        return [*steps, *super().get_urls()]

    def _fields_of(self, draft: PriceBookVersion) -> int:
        tiers = draft.prices.values_list("tiers", flat=True)
        return sum(FIELDS_OF_A_ROW + len(TIER_FIELDS) * len(listed or ()) for listed in tiers)

    @admin.display(description=_("Version"), ordering="number")
    def title(self, version: PriceBookVersion) -> str:
        return str(version)

    @admin.display(description=_("Price book"), ordering="book__name")
    def book_link(self, version: PriceBookVersion) -> SafeString | str:
        return link_to("pricing_pricebook", version.book_id, version.book.name)

    @admin.display(description=_("Prices"), ordering="prices_total")
    def prices_link(self, version: Any) -> SafeString:
        return list_link("pricing_price", str(version.prices_total), version__id__exact=version.pk)

    @admin.display(description=_("Next steps"))
    def steps(self, version: PriceBookVersion) -> SafeString | str:
        """Link to what can be done with a version in its state."""
        if version.state == VersionState.DRAFT:
            steps = [("publish", _now("Publish…")), ("discard", _now("Discard…"))]
        elif version.state == VersionState.PUBLISHED:
            steps = [("add-price", _now("Add a price where none matches…")), ("retire", _now("Retire…"))]
        else:
            steps = [("add-price", _now("Add a price where none matches…"))]
        steps.append(("compare", _now("Compare…")))
        links = ((reverse(f"admin:pricing_version_{step}", args=[version.pk]), text) for step, text in steps)
        return format_html_join(" · ", '<a href="{}">{}</a>', links)

    def publish(self, request: HttpRequest, version_id: Any) -> HttpResponse:
        """Ask from when a draft applies, then publish it."""
        form = HourForm(request.POST or None)

        def step(version: PriceBookVersion) -> str:
            services.publish_version(
                actor=staff_actor(request),
                version=version,
                effective_from=form.cleaned_data["moment"],
                now=timezone.now(),
            )
            return _now("%s is published.") % version

        version = get_object_or_404(PriceBookVersion.objects.select_related("book"), pk=version_id)
        before = version.book.versions.ever_published().order_by("-effective_from").first()
        return self._step(
            request,
            version_id,
            form,
            step,
            title=_now("Publish"),
            **_difference(before, version),
            **_touched(version.book),
        )

    def discard(self, request: HttpRequest, version_id: Any) -> HttpResponse:
        """Ask whether a draft may go, then discard it."""
        book = get_object_or_404(PriceBookVersion, pk=version_id).book

        def step(version: PriceBookVersion) -> str:
            services.discard_draft(actor=staff_actor(request), version=version, now=timezone.now())
            return _now("%s is discarded.") % version

        return self._step(
            request,
            version_id,
            forms.Form(request.POST or None),
            step,
            title=_now("Discard"),
            done_url=reverse("admin:pricing_pricebook_change", args=[book.pk]),
        )

    def compare(self, request: HttpRequest, version_id: Any) -> HttpResponse:
        """Show what changes from another version to this one, and whom this one touches."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        version = get_object_or_404(PriceBookVersion.objects.select_related("book"), pk=version_id)
        others = (
            PriceBookVersion.objects.select_related("book").filter(book=version.book).exclude(pk=version.pk)
        )
        form = CompareForm(request.GET or None, versions=others.order_by("-number"))
        other = form.cleaned_data["other"] if form.is_valid() else None
        other = other or others.filter(number__lt=version.number).order_by("-number").first()
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": _now("Compare"),
            "subtitle": str(version),
            "row": version,
            "row_url": reverse("admin:pricing_pricebookversion_change", args=[version.pk]),
            "form": CompareForm(initial={"other": other}, versions=others.order_by("-number")),
            **_difference(other, version),
            **_touched(version.book),
        }
        return TemplateResponse(request, "pricing/compare.html", context)

    def retire(self, request: HttpRequest, version_id: Any) -> HttpResponse:
        """Ask when a version ends if nothing ended it yet, then retire it."""
        version = get_object_or_404(PriceBookVersion, pk=version_id)
        form: forms.Form = forms.Form(request.POST or None)
        if version.effective_to is None:
            form = HourForm(request.POST or None, label=_now("Ends (UTC, a whole hour)"))

        def step(version: PriceBookVersion) -> str:
            services.retire_version(
                actor=staff_actor(request),
                version=version,
                effective_to=form.cleaned_data.get("moment"),
                now=timezone.now(),
            )
            return _now("%s is retired.") % version

        return self._step(request, version_id, form, step, title=_now("Retire"))

    def add_price(self, request: HttpRequest, version_id: Any) -> HttpResponse:
        """Ask for a row, then add it to a published version."""
        form = PriceForm(request.POST or None, choices=price_choices())

        def step(version: PriceBookVersion) -> str:
            assert form.row is not None, "a valid form has read its row"
            price = services.add_price_to_published(
                actor=staff_actor(request), version=version, row=form.row, now=timezone.now()
            )
            return _now("%(version)s has a price for %(price)s now.") % {"version": version, "price": price}

        return self._step(request, version_id, form, step, title=_now("Add a price"))

    def _step(
        self,
        request: HttpRequest,
        version_id: Any,
        form: forms.BaseForm,
        step: Callable[[PriceBookVersion], str],
        *,
        title: str,
        done_url: str = "",
        **context: Any,
    ) -> HttpResponse:
        if not self.has_publish_permission(request):
            raise PermissionDenied
        version = get_object_or_404(PriceBookVersion.objects.select_related("book"), pk=version_id)
        return take_step(
            self,
            request,
            row=version,
            row_url=reverse("admin:pricing_pricebookversion_change", args=[version.pk]),
            title=title,
            form=form,
            step=lambda: step(version),
            done_url=done_url,
            template="pricing/step.html",
            **context,
        )


def _difference(before: PriceBookVersion | None, after: PriceBookVersion) -> dict[str, Any]:
    changes: list[Change] = compare(services.rows_of(before) if before else (), services.rows_of(after))
    return {
        "before": before,
        "after": after,
        "changes": changes[:CHANGES_SHOWN_MAX],
        "changes_left": max(0, len(changes) - CHANGES_SHOWN_MAX),
        "compared": True,
        "currency": after.book.currency,
    }


def _touched(book: PriceBook) -> dict[str, Any]:
    organizations = selectors.touched_by(book, now=timezone.now())
    total = organizations.count()
    return {
        "touched": organizations[:TOUCHED_SHOWN_MAX],
        "touched_total": total,
        "touched_left": max(0, total - TOUCHED_SHOWN_MAX),
    }

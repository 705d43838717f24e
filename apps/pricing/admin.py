"""Prices in the staff admin: drafts are edited as a whole, published versions only read, ended and added to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.errors import DomainError, ValidationFailed
from apps.core.money import plain
from apps.core.staff import ReadOnlyAdmin, link_to, list_link, staff_actor
from apps.pricing import services
from apps.pricing.forms import HourForm, PriceForm, PriceFormSet, price_choices
from apps.pricing.models import (
    BookAssignment,
    Meter,
    Price,
    PriceBook,
    PriceBookVersion,
    Region,
    Sku,
    VersionState,
)

# A form of more rows would pass Django's limit of fields in one request; such drafts come from imports.
ROWS_EDITED_MAX = 75
ROWS_SHOWN_MAX = 500


class ServiceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Saves through services, and shows what they refuse."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Turn a refusal into messages on the same page; Django has rolled everything back by then."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except ValidationFailed as error:
            for field in error.fields:
                self.message_user(request, field.message, messages.ERROR)
        except DomainError as error:
            self.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect(request.get_full_path())


class CatalogAdmin(ServiceAdmin):
    """Meters, SKUs and regions: added and described, never removed, since prices and usage name them."""

    search_fields = ("code", "name")
    ordering = ("code",)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:  # noqa: ARG002
        return ("code",) if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: ARG002
        services.save_entry(actor=staff_actor(request), entry=obj)

    @admin.display(description=_("Prices"))
    def prices(self, entry: Meter | Sku | Region) -> SafeString:
        column = "meter" if isinstance(entry, Meter) else str(entry._meta.model_name)
        return list_link("pricing_price", _now("Prices"), **{f"{column}__exact": entry.code})


@admin.register(Meter)
class MeterAdmin(CatalogAdmin):
    list_display = ("code", "name", "unit_label", "unit_seconds", "prices")


@admin.register(Sku)
class SkuAdmin(CatalogAdmin):
    list_display = ("code", "name", "family", "gpus", "prices")
    list_filter = ("family",)

    @admin.display(description=_("GPUs"))
    def gpus(self, sku: Sku) -> str:
        return str(sku.attributes.get("gpus", ""))


@admin.register(Region)
class RegionAdmin(CatalogAdmin):
    list_display = ("code", "name", "prices")


class VersionInline(admin.TabularInline):  # type: ignore[type-arg]
    model = PriceBookVersion
    fields = readonly_fields = ("opened", "state", "effective_from", "effective_to", "published_at")
    ordering = ("-number",)
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 (Django's signature)
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

    def get_queryset(self, request: HttpRequest) -> QuerySet[PriceBook]:
        """Count what the list shows."""
        books: QuerySet[PriceBook] = super().get_queryset(request)
        current = Q(assignments__effective_to__isnull=True)
        return books.annotate(
            versions_total=Count("versions", distinct=True),
            assigned_total=Count("assignments", distinct=True, filter=current),
        ).prefetch_related("versions")

    def get_inlines(self, request: HttpRequest, obj: PriceBook | None = None) -> Any:  # noqa: ARG002
        return self.inlines if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: PriceBook | None = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: PriceBook | None = None) -> bool:  # noqa: ARG002
        return False

    def save_model(self, request: HttpRequest, obj: PriceBook, form: Any, change: bool) -> None:  # noqa: ARG002
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


class PriceInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Price
    form = PriceForm
    formset = PriceFormSet
    fields = (
        "meter",
        "sku",
        "region",
        "model",
        "unit_price",
        "tiers",
        "package_size",
        "package_price",
        "free_units",
    )
    ordering = ("meter", "sku", "region")
    extra = 1

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._is_draft(obj) and super().has_add_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._is_draft(obj) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._is_draft(obj) and super().has_delete_permission(request, obj)

    def _is_draft(self, version: PriceBookVersion | None) -> bool:
        return version is not None and version.state == VersionState.DRAFT


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

    def get_inlines(self, request: HttpRequest, obj: Any = None) -> Any:  # noqa: ARG002
        if obj is None:
            return ()
        rows_max = ROWS_EDITED_MAX if obj.state == VersionState.DRAFT else ROWS_SHOWN_MAX
        return (PriceInline,) if obj.prices_total <= rows_max else ()

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        # Drafts start from a book, see its action.
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_publish_permission(self, request: HttpRequest) -> bool:
        """Return whether this staff user may put prices in force."""
        return bool(request.user.has_perm("pricing.publish_pricebookversion"))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Change nothing: a version has no field of its own that a form may set."""

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:  # noqa: ARG002
        """Hand the rows as they are on the page to the service, as one change."""
        kept = [one for one in formset.forms if one not in formset.deleted_forms and hasattr(one, "row")]
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
                ("retire", self.retire),
                ("add-price", self.add_price),
            )
        ]
        return [*steps, *super().get_urls()]

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
            steps = [("publish", _now("Publish…"))]
        elif version.state == VersionState.PUBLISHED:
            steps = [("add-price", _now("Add a price where none matches…")), ("retire", _now("Retire…"))]
        else:
            steps = [("add-price", _now("Add a price where none matches…"))]
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

        return self._step(request, version_id, form, step, title=_now("Publish"))

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
    ) -> HttpResponse:
        if not self.has_publish_permission(request):
            raise PermissionDenied
        version = get_object_or_404(PriceBookVersion.objects.select_related("book"), pk=version_id)
        if request.method == "POST" and form.is_valid():
            try:
                self.message_user(request, step(version), messages.SUCCESS)
            except ValidationFailed as error:
                for field in error.fields:
                    form.add_error(None, field.message)
            except DomainError as error:
                form.add_error(None, str(error))
            else:
                return HttpResponseRedirect(
                    reverse("admin:pricing_pricebookversion_change", args=[version.pk])
                )
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": title,
            "subtitle": str(version),
            "version": version,
            "form": form,
        }
        return TemplateResponse(request, "pricing/version_step.html", context)


@admin.register(Price)
class PriceAdmin(ReadOnlyAdmin):
    list_display = ("place", "version_link", "state", "model", "cost")
    list_filter = (
        "version__state", ("meter", admin.RelatedOnlyFieldListFilter), "model",
        ("version__book", admin.RelatedOnlyFieldListFilter), "region",
    )  # fmt: skip
    list_select_related = ("version__book", "meter")
    search_fields = ("sku", "region", "key_id", "id")
    ordering = ("meter", "sku", "region", "-version__number", "pk")
    fields = ("version_link", "meter", "sku", "region", "model", "cost", "tiers", "key_id")
    readonly_fields = fields

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the links from versions and the catalog."""
        own = {"version__id__exact", "meter__exact", "sku__exact", "region__exact"}
        return lookup in own or super().lookup_allowed(lookup, value, request)

    @admin.display(description=_("Meter · SKU · region"), ordering="sku")
    def place(self, price: Price) -> str:
        return str(price)

    @admin.display(description=_("Version"), ordering="version__number")
    def version_link(self, price: Price) -> SafeString | str:
        return link_to("pricing_pricebookversion", price.version_id, str(price.version))

    @admin.display(description=_("State"), ordering="version__state")
    def state(self, price: Price) -> str:
        return price.version.get_state_display()

    @admin.display(description=_("Price"))
    def cost(self, price: Price) -> str:
        """Say the terms in a few words."""
        currency, unit = price.version.book.currency, price.meter.unit_label
        if price.unit_price is not None:
            return f"{plain(price.unit_price)} {currency} / {unit}"
        if price.package_price is not None and price.package_size is not None:
            return f"{plain(price.package_price)} {currency} / {plain(price.package_size)} {unit}"
        return _now("%(count)d tiers, %(currency)s / %(unit)s") % {
            "count": len(price.tiers or ()),
            "currency": currency,
            "unit": unit,
        }


@admin.register(BookAssignment)
class BookAssignmentAdmin(ServiceAdmin):
    list_display = ("organization_link", "book_link", "effective_from", "effective_to", "created_at")
    list_filter = (("book", admin.RelatedOnlyFieldListFilter),)
    list_select_related = ("organization", "book")
    search_fields = ("organization__slug", "organization__name", "book__name")
    ordering = ("organization__slug", "-effective_from")
    autocomplete_fields = ("book",)
    raw_id_fields = ("organization",)
    fields = ("organization", "book", "effective_from")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def save_model(self, request: HttpRequest, obj: BookAssignment, form: Any, change: bool) -> None:  # noqa: ARG002
        made = services.assign_book(
            actor=staff_actor(request),
            organization=obj.organization,
            book=obj.book,
            effective_from=obj.effective_from,
            now=timezone.now(),
        )
        obj.pk = made.pk

    @admin.display(description=_("Organization"), ordering="organization__slug")
    def organization_link(self, assignment: BookAssignment) -> SafeString | str:
        return link_to("organizations_organization", assignment.organization_id, assignment.organization.slug)

    @admin.display(description=_("Price book"), ordering="book__name")
    def book_link(self, assignment: BookAssignment) -> SafeString | str:
        return link_to("pricing_pricebook", assignment.book_id, assignment.book.name)

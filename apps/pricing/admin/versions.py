"""Versions of price books: drafts are edited, published ones only read, compared, ended and added to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.staff import ReadOnlyInline, ServiceAdmin, link_to, list_link, staff_actor, take_step
from apps.pricing import selectors, services
from apps.pricing.diffs import Change, compare, describe
from apps.pricing.forms import TIER_FIELDS, CompareForm, HourForm, PriceForm, PriceFormSet, price_choices
from apps.pricing.models import (
    Price,
    PriceBook,
    PriceBookVersion,
    VersionState,
)
from apps.pricing.rows import row_of

# A form of more fields would pass Django's limit for one request; the rows of such drafts are changed one by one.
FIELDS_EDITED_MAX = 900
FIELDS_OF_A_ROW = 18
ROWS_SHOWN_MAX = 500
CHANGES_SHOWN_MAX = 500
TOUCHED_SHOWN_MAX = 50


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


class PublishedPriceInline(ReadOnlyInline):
    """The rows of a version that was published, a line each."""

    model = Price
    fields = readonly_fields = ("meter", "sku", "region", "terms")
    ordering = ("meter", "sku", "region")

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

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Say of a large draft where its rows are edited."""
        return (*self.fields, "large") if obj is not None and self._is_large(obj) else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.get_fields(request, obj)

    def get_inlines(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ()
        if obj.state == VersionState.DRAFT:
            return () if self._is_large(obj) else (PriceInline,)
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

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        """Offer no button where there is nothing to save."""
        if obj is not None and self._is_large(obj):
            context |= {"show_save": False, "show_save_and_continue": False}
        return super().render_change_form(request, context, add, change, form_url, obj)

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
        steps += [
            path(
                f"<uuid:version_id>/prices/<uuid:price_id>/{step}/",
                self.admin_site.admin_view(page),
                name=f"pricing_price_{step}",
            )
            for step, page in (("edit", self.change_price), ("remove", self.remove_price))
        ]
        return [*steps, *super().get_urls()]

    def _is_large(self, version: PriceBookVersion) -> bool:
        """Return whether a draft has more rows than one form can send."""
        if version.state != VersionState.DRAFT:
            return False
        tiers = version.prices.values_list("tiers", flat=True)
        fields = sum(FIELDS_OF_A_ROW + len(TIER_FIELDS) * len(listed or ()) for listed in tiers)
        return fields > FIELDS_EDITED_MAX

    @admin.display(description=_("Many prices"))
    def large(self, version: Any) -> SafeString:
        """Link to the list in which each row of a large draft is changed by itself."""
        link = list_link("pricing_price", _now("Find the price to change"), version__id__exact=version.pk)
        return format_html(
            "{} {}", _now("These are more than one page can send, so each is changed by itself."), link
        )

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
            steps = [
                ("publish", _now("Publish…")),
                ("add-price", _now("Add a price…")),
                ("discard", _now("Discard…")),
            ]
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
        """Ask for a row, then put it into a draft, or add it to a published version where none matches."""
        version = get_object_or_404(PriceBookVersion, pk=version_id)
        is_draft = version.state == VersionState.DRAFT
        form = PriceForm(request.POST or None, choices=price_choices())

        def step(version: PriceBookVersion) -> str:
            assert form.row is not None, "a valid form has read its row"
            write = services.put_price if is_draft else services.add_price_to_published
            price = write(actor=staff_actor(request), version=version, row=form.row, now=timezone.now())
            return _now("%(version)s has a price for %(price)s now.") % {"version": version, "price": price}

        return self._step(request, version_id, form, step, title=_now("Add a price"), edits=is_draft)

    def change_price(self, request: HttpRequest, version_id: Any, price_id: Any) -> HttpResponse:
        """Ask for the new terms of one row of a draft, however many rows that has."""
        price = get_object_or_404(Price, pk=price_id, version=version_id)
        form = PriceForm(request.POST or None, instance=price, choices=price_choices())

        def step(version: PriceBookVersion) -> str:
            assert form.row is not None, "a valid form has read its row"
            services.put_price(
                actor=staff_actor(request),
                version=version,
                row=form.row,
                instead_of=price.pk,
                now=timezone.now(),
            )
            return _now("%s is changed.") % price

        return self._step(
            request,
            version_id,
            form,
            step,
            title=_now("Change %s") % price,
            edits=True,
            done_url=_prices_url(version_id),
        )

    def remove_price(self, request: HttpRequest, version_id: Any, price_id: Any) -> HttpResponse:
        """Ask whether one row of a draft may go, then remove it."""
        price = get_object_or_404(Price, pk=price_id, version=version_id)

        def step(version: PriceBookVersion) -> str:
            services.remove_price(
                actor=staff_actor(request), version=version, price_id=price.pk, now=timezone.now()
            )
            return _now("%s is removed.") % price

        return self._step(
            request,
            version_id,
            forms.Form(request.POST or None),
            step,
            title=_now("Remove %s") % price,
            edits=True,
            done_url=_prices_url(version_id),
        )

    def _step(
        self,
        request: HttpRequest,
        version_id: Any,
        form: forms.BaseForm,
        step: Callable[[PriceBookVersion], str],
        *,
        title: str,
        done_url: str = "",
        edits: bool = False,
        **context: Any,
    ) -> HttpResponse:
        """Take a step of a version. edits: whether it changes a draft's rows, which needs no more than that right."""
        version = get_object_or_404(PriceBookVersion.objects.select_related("book"), pk=version_id)
        if not (
            self.has_change_permission(request, version) if edits else self.has_publish_permission(request)
        ):
            raise PermissionDenied
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


def _prices_url(version_id: Any) -> str:
    return f"{reverse('admin:pricing_price_changelist')}?version__id__exact={version_id}"


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

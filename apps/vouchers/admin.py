"""Campaigns with their report, codes and redemptions in the staff admin."""

from __future__ import annotations

import csv
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.text import slugify
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.money import plain_micros
from apps.core.spreadsheets import neutral
from apps.core.staff import (
    EVERYWHERE,
    OrganizationLink,
    ReadOnlyAdmin,
    ReasonActionForm,
    ServiceAdmin,
    act_on_each,
    grouped_micros,
    link_to,
    list_link,
    micros_column,
    staff_actor,
    take_step,
    with_reason,
)
from apps.vouchers import codes, selectors, services
from apps.vouchers.forms import CampaignForm, CodesForm, ReasonForm
from apps.vouchers.models import Campaign, CampaignKind, Redemption, VoucherCode


@admin.register(Campaign)
class CampaignAdmin(ServiceAdmin):
    """Campaigns are added and ended; the list is their report."""

    list_display = (
        "name", "state", "face_value", "issued", "redeemed", "granted", "spent", "expired", "taken_back", "left",
        "converted", "ends_at",
    )  # fmt: skip
    list_filter = ("kind", "currency", ("ended_at", admin.EmptyFieldListFilter), "created_at")
    search_fields = ("name", "=id")
    ordering = ("-created_at", "-id")
    date_hierarchy = "created_at"
    actions = ("export_report",)
    shown = (
        "name", "state", "kind", "face_value", "redemptions_max", "organization_max", "starts_at", "ends_at",
        "credit_days", "new_within_days", "allowed_domains", "issued", "redeemed", "granted", "spent", "expired",
        "taken_back", "left", "converted", "created_by_label", "created_at", "ended_at", "related", "steps",
    )  # fmt: skip
    granted = micros_column("granted_micros", _("Granted"))
    spent = micros_column("spent_micros", _("Spent"))
    expired = micros_column("expired_micros", _("Expired"))
    taken_back = micros_column("taken_back_micros", _("Taken back"))
    left = micros_column("left_micros", _("Left"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Campaign]:
        return selectors.with_report(super().get_queryset(request))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.shown if obj else CampaignForm.Meta.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.shown if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Give the form to new campaigns only; an old one is all text."""
        form = forms.ModelForm if obj else CampaignForm
        return super().get_form(request, obj, change, **{**kwargs, "form": form})

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Campaign, form: Any, change: bool) -> None:
        made = services.create_campaign(actor=staff_actor(request), now=timezone.now(), **form.facts())
        obj.__dict__ |= made.__dict__

    def get_urls(self) -> list[URLPattern]:
        """Add the pages that make codes and end a campaign."""
        wrap = self.admin_site.admin_view
        return [
            path("<uuid:campaign_id>/codes/", wrap(self.issue), name="vouchers_issue_codes"),
            path("<uuid:campaign_id>/end/", wrap(self.end), name="vouchers_end_campaign"),
            *super().get_urls(),
        ]

    def issue(self, request: HttpRequest, campaign_id: Any) -> HttpResponse:
        """Make codes and hand them over, the one time that they are known: one on the page, many as a file."""
        campaign = self._campaign(request, campaign_id)
        shared = campaign.kind == CampaignKind.SHARED
        form: forms.Form = forms.Form(request.POST or None) if shared else CodesForm(request.POST or None)
        made: list[str] = []

        def step() -> str:
            made.extend(
                services.issue_codes(
                    actor=staff_actor(request),
                    campaign=campaign,
                    count=form.cleaned_data.get("count", 1),
                    now=timezone.now(),
                )
            )
            return _now("The codes are made; they are not kept.")

        page = take_step(
            self,
            request,
            row=campaign,
            row_url=self._url(campaign),
            title=_now("Make the code") if shared else _now("Make codes"),
            form=form,
            step=step,
        )
        if not made:
            return page
        if shared:
            context = {
                **self.admin_site.each_context(request),
                "title": campaign.name,
                "opts": self.opts,
                "secret": made[0],
                "done_url": self._url(campaign),
            }
            return TemplateResponse(request, "vouchers/code_once.html", context)
        return _codes_file(campaign, made)

    def end(self, request: HttpRequest, campaign_id: Any) -> HttpResponse:
        """Ask why, then end a campaign before its time."""
        campaign = self._campaign(request, campaign_id)
        form = ReasonForm(request.POST or None)

        def step() -> str:
            services.end_campaign(
                actor=staff_actor(request),
                campaign=campaign,
                reason=form.cleaned_data["reason"],
                now=timezone.now(),
            )
            return _now("%s has ended; its codes work no more.") % campaign

        return take_step(
            self, request, row=campaign, row_url=self._url(campaign), title=_now("End"), form=form, step=step
        )

    @admin.action(description=_("Report as a file"), permissions=["view"])
    def export_report(self, request: HttpRequest, queryset: QuerySet[Campaign]) -> HttpResponse:
        answer = HttpResponse(content_type="text/csv; charset=utf-8")
        answer["Content-Disposition"] = 'attachment; filename="vouchers.csv"'
        writer = csv.writer(answer)
        columns = ("issued", "redeemed_count", "redemptions_max", "converted")
        amounts = (
            "amount_micros", "granted_micros", "spent_micros", "expired_micros", "taken_back_micros", "left_micros",
        )  # fmt: skip
        writer.writerow(
            ["campaign", "currency", *columns, *(name.removesuffix("_micros") for name in amounts)]
        )
        for campaign in queryset.order_by("created_at", "pk"):
            writer.writerow(
                [
                    neutral(campaign.name),
                    campaign.currency,
                    *(getattr(campaign, name) for name in columns),
                    *(plain_micros(getattr(campaign, name)) for name in amounts),
                ]
            )
        return answer

    @admin.display(description=_("State"))
    def state(self, campaign: Campaign) -> str:
        now = timezone.now()
        if campaign.has_ended(now):
            return _now("ended")
        if campaign.redeemed_count >= campaign.redemptions_max:
            return _now("all redeemed")
        return _now("open") if campaign.is_open(now) else _now("planned")

    @admin.display(description=_("Amount"), ordering="amount_micros")
    def face_value(self, campaign: Campaign) -> str:
        return f"{grouped_micros(campaign.amount_micros)} {campaign.currency}"

    @admin.display(description=_("Codes made"), ordering="issued")
    def issued(self, campaign: Campaign) -> SafeString:
        count = f"{campaign.issued:,}"  # type: ignore[attr-defined]  # Of the report.
        return list_link("vouchers_vouchercode", count, campaign__id__exact=campaign.pk)

    @admin.display(description=_("Redeemed"), ordering="redeemed_count")
    def redeemed(self, campaign: Campaign) -> SafeString:
        text = _now("%(count)d of %(most)d") % {
            "count": campaign.redeemed_count,
            "most": campaign.redemptions_max,
        }
        return list_link("vouchers_redemption", text, campaign__id__exact=campaign.pk)

    @admin.display(description=_("Bought afterwards"), ordering="converted")
    def converted(self, campaign: Campaign) -> int:
        return int(campaign.converted)  # type: ignore[attr-defined]  # Of the report.

    @admin.display(description=_("Related"))
    def related(self, campaign: Campaign) -> SafeString:
        return list_link("audit_auditevent", _now("Audit"), q=campaign.pk)

    @admin.display(description=_("Next steps"))
    def steps(self, campaign: Campaign) -> SafeString | str:
        if campaign.has_ended(timezone.now()):
            return "–"
        make = _now("Make the code…") if campaign.kind == CampaignKind.SHARED else _now("Make codes…")
        links = [("vouchers_issue_codes", make), ("vouchers_end_campaign", _now("End…"))]
        return format_html_join(
            " · ",
            '<a href="{}">{}</a>',
            ((reverse(f"admin:{name}", args=[campaign.pk]), text) for name, text in links),
        )

    def _campaign(self, request: HttpRequest, campaign_id: Any) -> Campaign:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return get_object_or_404(Campaign, pk=campaign_id)

    def _url(self, campaign: Campaign) -> str:
        return reverse("admin:vouchers_campaign_change", args=[campaign.pk])


@admin.register(VoucherCode)
class VoucherCodeAdmin(ReadOnlyAdmin):
    """Codes by their last four characters; a whole one that a customer sends is found as well."""

    list_display = ("__str__", "state", "campaign", "redeemed", "voided_at", "created_at")
    fields = ("campaign", "hint", "state", "redeemed", "voided_at", "created_at")
    list_filter = (("voided_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("campaign",)
    search_fields = ("=hint", "campaign__name", "=id")
    search_help_text = _("A whole code, its last four characters, or the campaign")
    ordering = ("-created_at", "-id")
    action_form = ReasonActionForm
    actions = ("void_selected",)
    show_full_result_count = False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[VoucherCode], search_term: str
    ) -> tuple[QuerySet[VoucherCode], bool]:
        code = codes.normalize(search_term)
        if code is not None:
            return queryset.filter(digest=codes.digest(code)), False
        return super().get_search_results(request, queryset, search_term)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup == "campaign__id__exact" or super().lookup_allowed(lookup, value, request)

    def has_void_permission(self, request: HttpRequest) -> bool:
        """Whoever may change codes may void them."""
        return admin.ModelAdmin.has_change_permission(self, request)

    @admin.action(
        description=_("Void: make worthless from now on"), permissions=["void"], location=EVERYWHERE
    )
    @with_reason
    def void_selected(self, request: HttpRequest, queryset: QuerySet[VoucherCode], reason: str) -> None:
        def void(code: VoucherCode) -> str:
            services.void_code(actor=staff_actor(request), code=code, reason=reason, now=timezone.now())
            return _now("%s is void.") % code

        act_on_each(self, request, queryset, void)

    @admin.display(description=_("State"))
    def state(self, code: VoucherCode) -> str:
        """Return what stands against the code itself; whom it is for is the campaign's."""
        now = timezone.now()
        if code.voided_at is not None:
            return _now("void")
        if code.redeemed_count >= code.redemptions_max:
            return _now("used up")
        if code.campaign.has_ended(now):
            return _now("campaign ended")
        return _now("works") if code.campaign.is_open(now) else _now("works from its campaign's start on")

    @admin.display(description=_("Redeemed"), ordering="redeemed_count")
    def redeemed(self, code: VoucherCode) -> SafeString:
        text = _now("%(count)d of %(most)d") % {"count": code.redeemed_count, "most": code.redemptions_max}
        return list_link("vouchers_redemption", text, code__id__exact=code.pk)


@admin.register(Redemption)
class RedemptionAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = (
        "created_at", "organization_link", "campaign", "code", "lot_link", "ordinal", "redeemed_by_label",
    )  # fmt: skip
    list_filter = ("created_at",)
    list_select_related = ("organization", "campaign", "code", "lot")
    search_fields = ("organization__slug", "campaign__name", "redeemed_by_label", "=id", "=organization__id")
    ordering = ("-created_at", "-id")
    date_hierarchy = "created_at"

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the links from campaigns and codes."""
        own = {"campaign__id__exact", "code__id__exact"}
        return lookup in own or super().lookup_allowed(lookup, value, request)

    @admin.display(description=_("Credit lot"))
    def lot_link(self, row: Redemption) -> SafeString | str:
        return link_to("billing_creditlot", row.lot_id, grouped_micros(row.lot.amount_micros))


def _codes_file(campaign: Campaign, made: list[str]) -> HttpResponse:
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{slugify(campaign.name) or campaign.pk}.csv"'
    writer = csv.writer(answer)
    writer.writerow(["code", "amount", "currency", "redeem_until"])
    until = campaign.ends_at.isoformat() if campaign.ends_at else ""
    amount = plain_micros(campaign.amount_micros)
    writer.writerows([code, amount, campaign.currency, until] for code in made)
    return answer

"""What the staff admin's classes share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.contrib.admin.options import ActionLocation
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from apps.core.actor import Actor, ActorKind
from apps.core.errors import DomainError, ValidationFailed
from apps.core.forms import add_refusal, in_words
from apps.core.http.address import client_address
from apps.core.money import from_micros, grouped, grouped_minor

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


def staff_actor(request: HttpRequest) -> Actor:
    """Return the staff user of a request as the actor of a service."""
    user = request.user
    return Actor(kind=ActorKind.STAFF, id=user.pk, label=user.get_username(), address=client_address(request))


class LinkedRowsAdmin(admin.ModelAdmin):
    """The first column leads to its row, unless it is itself a link to elsewhere: then the next one does."""

    def get_list_display_links(
        self, request: HttpRequest, list_display: list[Any] | tuple[Any, ...]
    ) -> list[Any] | tuple[Any, ...]:
        """Return the columns that lead to the row; a column whose name ends in `_link` is a link already."""
        if self.list_display_links or self.list_display_links is None:
            return super().get_list_display_links(request, list_display)
        return [next(column for column in list_display if not str(column).endswith("_link"))]


class ReadOnlyAdmin(LinkedRowsAdmin):
    """Rows are shown, never edited; a change is an action that calls a service with a reason. Amounts are money."""

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Return the fields of a row's page; those that count micros or minor units become amounts."""
        return [_as_money(self.model, name) for name in super().get_fields(request, obj)]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyInline(admin.TabularInline):
    """Rows shown beneath the one they belong to, never edited there."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


REFUSAL = "service_refusal"  # Where a request carries what a service refused, for its form.


class ServiceAdmin(LinkedRowsAdmin):
    """Saves through services, and shows what they refuse beside what was typed."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the form again with the errors of a refusal; Django has rolled everything back by then."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except DomainError as error:
            setattr(request, REFUSAL, error)
        return super().changeform_view(request, *args, **kwargs)

    def get_form(
        self, request: HttpRequest, obj: Any | None = None, change: bool = False, **kwargs: Any
    ) -> type[forms.ModelForm[Any]]:
        """Return the form, which says what a service refused where there is a refusal."""
        form = super().get_form(request, obj, change=change, **kwargs)
        refusal = getattr(request, REFUSAL, None)
        return form if refusal is None else _refused(form, refusal)


def _refused(form: type[forms.ModelForm[Any]], refusal: DomainError) -> type[forms.ModelForm[Any]]:
    def clean(self: forms.ModelForm[Any]) -> Any:
        cleaned = form.clean(self)
        problems = refusal.fields if isinstance(refusal, ValidationFailed) else ()
        for problem in problems:
            self.add_error(problem.path if problem.path in self.fields else None, str(problem.message))
        if not problems:
            self.add_error(None, str(refusal))
        return cleaned

    return type(form.__name__, (form,), {"clean": clean})


class OrganizationLink:
    """The column `organization_link` for rows with an organization, which `list_select_related` must name."""

    @admin.display(description=_("Organization"), ordering="organization__slug")
    def organization_link(self, row: Any) -> SafeString | str:
        return link_to("organizations_organization", row.organization_id, row.organization.slug)


def micros_column(field: str, description: StrOrPromise) -> Callable[[Any, Any], str]:
    """Return a column that shows an amount and sorts by it.

    field: the amount's ORM path, in micros, such as `account__balance_micros`; no amount is shown as 0.00.
    """
    micros_of = attrgetter(field.replace("__", "."))

    @admin.display(description=description, ordering=field)
    def column(_model_admin: Any, row: Any) -> str:
        return grouped_micros(micros_of(row) or 0)

    return column


def grouped_micros(micros: int) -> str:
    """Return micros as major units with thousands separated and a true minus, exactly."""
    return grouped(from_micros(micros), decimals_min=2)


def _as_money(model: type[Model], name: Any) -> Any:
    """Return a column that shows a field of integers as money, or the field as it is."""
    stem, _underscore, unit = str(name).rpartition("_")
    if unit not in {"micros", "minor"} or not hasattr(model, str(name)):
        return name

    @admin.display(description=stem.replace("_", " "))
    def column(row: Any) -> str:
        value = getattr(row, name)
        if value is None:
            return "–"
        if unit == "micros":
            return grouped_micros(value)
        currency = getattr(row, "currency", None) or row.organization.currency
        return f"{grouped_minor(value, currency)} {currency}"

    column.__name__ = name
    return column


# An action that is offered beside the list and on the page of each row.
EVERYWHERE = (ActionLocation.CHANGE_LIST, ActionLocation.CHANGE_FORM)


class ReasonActionForm(ActionForm):
    """The choice of an action with its reason beside it; `with_reason` asks for one that is missing."""

    reason = forms.CharField(label=_("Reason"), required=False, max_length=500)


class _ReasonForm(forms.Form):
    reason = forms.CharField(
        label=_("Reason"),
        help_text=_("The audit log keeps it."),
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3}),
        error_messages={"required": _("Say why, then send it again; your choice is kept.")},
    )


ROWS_NAMED_MAX = 20  # Beyond them staff read how many there are.


def with_reason[A: admin.ModelAdmin[Any], R: Model](
    act: Callable[[A, HttpRequest, QuerySet[R], str], None],
) -> Callable[[A, HttpRequest, QuerySet[R]], HttpResponse | None]:
    """Make an admin action of a function that is also given the reason.

    Sent without one, the action asks for it on a page of its own, which keeps the chosen rows.
    """

    @wraps(act)
    def action(model_admin: A, request: HttpRequest, queryset: QuerySet[R]) -> HttpResponse | None:
        # On a row's own page the fields of the action have a prefix.
        place = ActionLocation.CHANGE_FORM.value
        prefix = place if f"{place}-action" in request.POST else None
        form = _ReasonForm(request.POST, prefix=prefix)
        if form.is_valid():
            act(model_admin, request, queryset, form.cleaned_data["reason"])
            return None
        name, count = act.__name__, queryset.count()
        context = {
            **model_admin.admin_site.each_context(request),
            "opts": model_admin.opts,
            "title": dict(model_admin.get_action_choices(request))[name],
            "form": form,
            "rows": [str(row) for row in queryset[:ROWS_NAMED_MAX]],
            "count": count,
            "more": max(count - ROWS_NAMED_MAX, 0),
            "action": name,
            "prefix": f"{prefix}-" if prefix else "",
            "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
            "list_url": request.get_full_path(),
        }
        return TemplateResponse(request, "admin/reason.html", context)

    return action


def act_on_each(
    model_admin: admin.ModelAdmin[Any],
    request: HttpRequest,
    rows: QuerySet[Any],
    act: Callable[[Any], str],
    *,
    named: Callable[[Any], str] = str,
) -> None:
    """Call a service for each row and say how each went; of very many, how the first of them did.

    act: returns what happened, in words; what it refuses is said with the row's name.
    """
    said: dict[int, list[str]] = {messages.ERROR: [], messages.SUCCESS: []}
    for row in rows.order_by("pk"):
        try:
            said[messages.SUCCESS].append(act(row))
        except DomainError as refusal:
            said[messages.ERROR].append(f"{named(row)}: {in_words(refusal)}")
    for level, texts in said.items():
        for text in texts[:ROWS_NAMED_MAX]:
            model_admin.message_user(request, text, level)
        if (more := len(texts) - ROWS_NAMED_MAX) > 0:
            model_admin.message_user(request, _more_rows(more, level), level)


def _more_rows(count: int, level: int) -> str:
    if level == messages.ERROR:
        text = ngettext("One more row was refused.", "%(count)s more rows were refused.", count)
    else:
        text = ngettext("The same for one more row.", "The same for %(count)s more rows.", count)
    return text % {"count": f"{count:,}"}


def link_to(model: str, pk: object, text: str) -> SafeString | str:
    """Return a link to a row's admin page; `model` is `app_model`, such as `invoices_invoice`."""
    if pk is None:
        return "–"
    return format_html('<a href="{}">{}</a>', reverse(f"admin:{model}_change", args=[pk]), text)


def list_link(model: str, text: str, **filters: object) -> SafeString:
    """Return a link to an admin list narrowed by exact filters."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return format_html('<a href="{}?{}">{}</a>', reverse(f"admin:{model}_changelist"), query, text)


def take_step(
    model_admin: admin.ModelAdmin[Any],
    request: HttpRequest,
    *,
    row: Model,
    row_url: str,
    title: str,
    form: forms.BaseForm,
    step: Callable[[], str],
    done_url: str = "",
    template: str = "admin/step.html",
    **more: object,
) -> HttpResponse:
    """Show the page of one step that a row takes, a form with one button; once it is sent, take the step.

    step: calls a service and returns what happened, in words. What it refuses is shown on the form.
    """
    if request.method == "POST" and form.is_valid():
        try:
            model_admin.message_user(request, step(), messages.SUCCESS)
        except DomainError as refusal:
            add_refusal(form, refusal)
        else:
            return HttpResponseRedirect(done_url or row_url)
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.model._meta,
        "title": title,
        "subtitle": str(row),
        "row": row,
        "row_url": row_url,
        "form": form,
        **more,
    }
    return TemplateResponse(request, template, context)

"""A price book from a file, previewed before anything is written."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.core.errors import DomainError, ValidationFailed
from apps.core.staff import staff_actor
from apps.pricing import services
from apps.pricing.forms import ImportForm
from apps.pricing.models import PriceBook
from apps.pricing.services import Preview

ERRORS_SHOWN_MAX = 50
CHANGES_SHOWN_MAX = 500


def import_page(site: Any, request: HttpRequest) -> HttpResponse:
    """Read a file and show what it would change; the same file, carried along by the page, is then imported."""
    if not request.user.has_perm("pricing.add_pricebook"):
        raise PermissionDenied
    form = ImportForm(request.POST or None, request.FILES or None)
    preview: Preview | None = None
    if request.method == "POST" and form.is_valid():
        try:
            preview = services.preview_import(content=form.content, now=timezone.now())
            if "import" in request.POST:
                result = services.import_price_book(
                    actor=staff_actor(request), content=form.content, publish=False, now=timezone.now()
                )
                for message in result.messages:
                    messages.success(request, message)
                url = reverse("admin:pricing_pricebookversion_change", args=[result.version.pk])
                return HttpResponseRedirect(url)
        except ValidationFailed as error:
            for field in error.fields[:ERRORS_SHOWN_MAX]:
                form.add_error(None, f"{field.path}: {field.message}")
        except DomainError as error:
            form.add_error(None, str(error))
    changes = preview.changes if preview else ()
    context = {
        **site.each_context(request),
        "opts": PriceBook._meta,
        "title": _("Import a price book"),
        "form": form,
        "preview": preview,
        "before": preview.against if preview else None,
        "changes": changes[:CHANGES_SHOWN_MAX],
        "changes_left": max(0, len(changes) - CHANGES_SHOWN_MAX),
        "compared": preview is not None,
        "currency": form.content.currency if preview else "",
        "carried": form.carried() if preview else "",
    }
    return TemplateResponse(request, "pricing/import.html", context)

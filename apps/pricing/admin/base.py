"""What the pages of prices share."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from apps.core.errors import DomainError, ValidationFailed


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

"""What the lists of payments have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from apps.core.money import grouped_minor
from apps.core.staff import (
    OrganizationLink,
    ReadOnlyAdmin,
    act_on_each,
)


class StaffAdmin(OrganizationLink, ReadOnlyAdmin):
    """What the lists of payments have in common."""

    show_full_result_count = False

    def each(
        self, request: HttpRequest, rows: QuerySet[Any], act: Callable[[Any], object], done: str
    ) -> None:
        """Call a service for each row and say how each went."""

        def told(row: Any) -> str:
            act(row)
            return f"{self.named(row)}: {done}"

        act_on_each(self, request, rows, told, named=self.named)

    def named(self, row: Any) -> str:
        """Return what messages call a row."""
        return str(row)

    def has_own_permission(self, request: HttpRequest, name: str) -> bool:
        """Return whether the staff user holds a permission of this app."""
        return request.user.has_perm(f"payments.{name}")

    @admin.display(description=gettext_lazy("Amount"), ordering="amount_minor")
    def amount(self, row: Any) -> str:
        return f"{grouped_minor(row.amount_minor, row.currency)} {row.currency}"

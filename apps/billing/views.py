"""Pages: the usage explorer, and the statement of a month."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from apps.billing import explorer, statements
from apps.billing.forms import UsageForm
from apps.billing.usage import UsageQuery, usage_with_amounts
from apps.core.http.pages import OrganizationPage
from apps.core.periods import is_label, label_of
from apps.core.permissions import Permission
from apps.core.spreadsheets import neutral


class Usage(OrganizationPage):
    """Usage and what it cost, cut as asked; the same as a file with `format=csv`."""

    permission = Permission.USAGE_READ
    section = "usage"
    template_name = "billing/usage.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        today = timezone.localdate(self.now)
        standard = {"first": today.replace(day=1), "last": today, "group": "sku", "interval": "day"}
        form = UsageForm(
            {**standard, **{name: request.GET[name] for name in standard if name in request.GET}}
        )
        if not form.is_valid():
            return self.render({"form": form}, status=422)
        start, end = form.range()
        group, interval = form.cleaned_data["group"], form.cleaned_data["interval"]
        if request.GET.get("format") == "csv":
            query = UsageQuery(start=start, end=end, group_by=(group,), interval=interval)
            return self._file(query)
        found = explorer.explore(
            self.organization, start=start, end=end, group=group, interval=interval, now=self.now
        )
        return self.render({"form": form, "found": found, "group": group, "query": form.data})

    def _file(self, query: UsageQuery) -> HttpResponse:
        names = ["start", *query.group_by, "meter", "quantity", "gpu_hours", "amount", "currency"]
        text = StringIO()
        rows = csv.writer(text)
        rows.writerow(names)
        for row in usage_with_amounts(self.organization, query, now=self.now):
            row["start"] = timezone.localtime(row["start"]).isoformat()
            rows.writerow([neutral(row[name]) for name in names])
        response = HttpResponse(text.getvalue(), content_type="text/csv; charset=utf-8")
        first, last = query.start.date(), query.end.date()
        response["Content-Disposition"] = f'attachment; filename="usage-{first}-{last}.csv"'
        return response


class Statement(OrganizationPage):
    """What came and went in a month, with the balance after each line."""

    permission = Permission.BILLING_READ
    section = "credits"
    template_name = "billing/statement.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        """Show the month that is asked for, or this one."""
        asked = request.GET.get("month", "")
        this_month = label_of(self.now, self.organization.timezone)
        label = asked if is_label(asked) and "1970" <= asked <= this_month else this_month
        found = statements.statement(self.organization, label, now=self.now)
        return self.render({"statement": found, "newest_first": reversed(found.lines)})

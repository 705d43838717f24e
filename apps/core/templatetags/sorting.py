"""The head of a column that a list can be sorted by."""

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.core.http.sorting import Sorting

register = template.Library()


@register.simple_tag
def sorted_by(sorting: Sorting, name: str, label: str, kind: str = "") -> SafeString:
    """Return a `<th>` that leads to the list sorted by this column. kind: `number` aligns it as its figures are."""
    return format_html(
        '<th scope="col" class="{}" aria-sort="{}"><a class="sort" href="{}">{}</a></th>',
        kind,
        sorting.direction(name),
        sorting.url(name),
        label,
    )

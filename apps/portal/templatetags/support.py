"""What a page tells somebody who needs help."""

from django import template

from apps.core import correlation

register = template.Library()


@register.simple_tag
def correlation_id() -> str:
    """Return the id under which the logs keep this request."""
    return correlation.current()

"""What a page offers only to whoever may do it; the view behind it checks again."""

from django import template

from apps.core.actor import Actor
from apps.core.permissions import Permission

register = template.Library()


@register.filter
def may(actor: Actor, permission: str) -> bool:
    """Return whether the actor of a page holds the permission of that name; an unknown name is a bug."""
    return actor.can(Permission(permission))

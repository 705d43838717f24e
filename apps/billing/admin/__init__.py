"""Credit, charges and what guards spending in the staff admin; Django finds the classes by importing this package."""

from apps.billing.admin import charges, credit, guard

__all__ = ["charges", "credit", "guard"]

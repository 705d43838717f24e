"""Invoices in the staff admin; Django finds the classes by importing this package."""

from apps.invoices.admin import documents, journal, sellers

__all__ = ["documents", "journal", "sellers"]

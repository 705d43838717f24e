"""Prices in the staff admin; Django finds the classes by importing this package."""

from apps.pricing.admin import books, catalog, organizations, versions

__all__ = ["books", "catalog", "organizations", "versions"]

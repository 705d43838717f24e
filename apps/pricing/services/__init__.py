"""Every write to prices."""

from apps.pricing.services.books import (
    BookNameTaken,
    EffectiveDateRefused,
    PriceExists,
    VersionEmpty,
    VersionNotDraft,
    VersionNotPublished,
    add_price_to_published,
    assign_book,
    create_book,
    create_version,
    publish_version,
    replace_prices,
    retire_version,
    save_entry,
    start_draft,
)
from apps.pricing.services.imports import FIRST_EFFECTIVE_FROM, ImportResult, import_price_book
from apps.pricing.services.overrides import end_override, override_by_percent, override_price

__all__ = [
    "FIRST_EFFECTIVE_FROM",
    "BookNameTaken",
    "EffectiveDateRefused",
    "ImportResult",
    "PriceExists",
    "VersionEmpty",
    "VersionNotDraft",
    "VersionNotPublished",
    "add_price_to_published",
    "assign_book",
    "create_book",
    "create_version",
    "end_override",
    "import_price_book",
    "override_by_percent",
    "override_price",
    "publish_version",
    "replace_prices",
    "retire_version",
    "save_entry",
    "start_draft",
]

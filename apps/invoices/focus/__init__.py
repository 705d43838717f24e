"""Cost and usage in the format of the FinOps Foundation, FOCUS 1.2 (focus.finops.org/focus-specification/v1-2)."""

from apps.invoices.focus.dataset import COLUMNS, as_csv, month_rows

__all__ = ["COLUMNS", "as_csv", "month_rows"]

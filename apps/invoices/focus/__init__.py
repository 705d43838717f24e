"""Cost and usage in the format of the FinOps Foundation, FOCUS 1.2 (focus.finops.org/focus-specification/v1-2)."""

from apps.invoices.focus.dataset import COLUMNS, month_rows, write_csv

__all__ = ["COLUMNS", "month_rows", "write_csv"]

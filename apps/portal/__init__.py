"""Pages that span concepts."""

"""Invoices and credit notes as files: what they say (`content`), as PDF, e-invoice and tables."""

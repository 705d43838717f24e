"""Prices: meters, SKUs, regions, price books in versions, and the pure arithmetic of rating."""

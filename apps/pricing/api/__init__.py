"""REST of prices: what is sold for how much, and the books behind it."""

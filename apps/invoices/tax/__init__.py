"""Which tax a sale bears, and how a tax is spread over lines. Everything here is pure."""

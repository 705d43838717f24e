"""REST: who is asking, the keys of an organization, and tokens of people."""

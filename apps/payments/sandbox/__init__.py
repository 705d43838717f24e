"""A stand-in for Stripe on the developer's machine: real shapes, real signatures, real retries, no money.

It is a process of its own with its own file of state, and knows nothing of our database. The public library of
Stripe talks to it unmodified.
"""

"""REST: organizations, members, invites and projects."""

"""Pages: organizations, members, invites, projects and settings."""

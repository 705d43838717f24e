"""People: users, login, second factors."""

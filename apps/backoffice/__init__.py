"""The staff's side: the admin site behind a second factor, and the staff's home."""

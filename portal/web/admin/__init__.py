"""Pages for superusers."""

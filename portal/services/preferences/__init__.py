"""Preferences: what members choose, and what superusers choose for them."""

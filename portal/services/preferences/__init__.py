"""Preferences: members' choices, and superusers' choices for them."""

"""Adapters: how the portal talks to list managers. They know neither the database nor Flask."""

"""Adapters, through which the portal talks to list managers. They use neither the database nor Flask."""

"""Accounts: users, their addresses, log-ins, passwords and keys."""

"""The membership source: accounts follow it."""

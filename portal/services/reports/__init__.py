"""Read-only reports for superusers, monitoring and the command line."""

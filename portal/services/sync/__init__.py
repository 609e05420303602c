"""The sync: runs, plans, leases, list-init and what the generated scripts do."""

"""The sync: runs, plans, leases, list-init and the generated scripts."""

"""Mail: mailed links, letters, and sending."""

"""Mail: links that are mailed, letters, and how they are sent."""

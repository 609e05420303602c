"""Use cases: the only SQL and the only commit. What they need reaches them as arguments."""

"""Values and rules: pure functions over plain data."""

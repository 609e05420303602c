"""The real list managers: how tests start them, look into them, and stop them."""

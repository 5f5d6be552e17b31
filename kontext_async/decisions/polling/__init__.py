"""When to poll which task. No await, no clock."""

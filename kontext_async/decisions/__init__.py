"""What to do next: plain functions and objects that take `now` and random numbers. No await, no clock."""

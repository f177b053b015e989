"""Training one cell: the loop, its resume points and its arithmetic."""

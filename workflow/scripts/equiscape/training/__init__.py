"""Training one cell: the loop, its resume points, augmentation and arithmetic."""

"""Figures of the study, one module a notebook; each function takes tidy data, gives a Figure."""

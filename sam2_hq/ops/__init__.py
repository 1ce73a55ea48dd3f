"""Functions on masks and points; no weights, no state."""

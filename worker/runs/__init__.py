"""One run, from its message to its end."""

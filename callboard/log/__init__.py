"""The log: one form for the lines of every process."""

"""Callboard beside its peers: the same two jobs, one load generator, one table."""

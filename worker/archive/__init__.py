"""Ended runs go into the history."""

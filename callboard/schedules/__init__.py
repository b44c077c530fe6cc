"""Schedules: when they fire, and what became of it."""

"""Threads and processes that are looked after."""

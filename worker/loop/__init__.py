"""The loop processes: async handlers, many at once on one event loop each."""

"""The outbox: what a worker publishes of it."""

"""What hooks into Celery: its pool, consumer, requests, events."""

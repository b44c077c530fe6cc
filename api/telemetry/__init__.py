"""What the API tells of itself: log, metrics, traces, health."""

"""Flower's settings: what makes `/api/task/apply` fastest."""

enable_events = False
read_only = False
logging = "warning"

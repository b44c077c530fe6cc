"""Who calls: the verified token, and the keys that verify it."""

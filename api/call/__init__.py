"""The call path: from a request to its run and back."""

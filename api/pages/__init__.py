"""What people look at: console, documentation, OpenAPI."""

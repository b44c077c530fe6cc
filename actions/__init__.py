"""The application's own code: one module per topic. Every module here is found by itself."""

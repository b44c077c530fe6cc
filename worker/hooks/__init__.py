"""The application's hooks, as a process that runs handlers calls them."""

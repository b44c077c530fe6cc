"""The application's actions: every module here is found."""

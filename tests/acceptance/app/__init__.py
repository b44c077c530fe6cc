"""The actions that the acceptance tests call: what applications do, and what goes wrong."""

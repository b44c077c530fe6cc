"""What an application imports, as `callboard` hands it on."""

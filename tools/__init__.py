"""Programs that make what is shipped as data."""

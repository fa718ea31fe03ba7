"""Find and validate the circuits of many tasks of one model."""

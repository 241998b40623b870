"""The targets of a mirror: what is due at each, what is under way, what failed, and what waits for a word."""

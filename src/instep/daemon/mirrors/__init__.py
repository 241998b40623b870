"""A mirror: one source, watched, and its targets, from the first look to the last signal."""

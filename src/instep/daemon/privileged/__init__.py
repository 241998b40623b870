"""A helper process that keeps the rights: it watches, lists, and starts programs, for a daemon that has none."""

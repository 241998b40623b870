"""Programs run for somebody's configuration."""

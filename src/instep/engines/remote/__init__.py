"""A target on another machine, written by an agent that travels over one ssh connection."""

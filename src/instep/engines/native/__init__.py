"""Source and target on this machine: copied in process, replaced atomically, moved by rename."""

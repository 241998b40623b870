"""Side by side with clsync, lsyncd, rsync and cp: the same work, in turn, on the same file system."""

"""What a target can do: found out by trying it there, in a directory that is gone afterwards."""

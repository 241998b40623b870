"""System calls that the standard library lacks, by ctypes; each module imports on every system."""

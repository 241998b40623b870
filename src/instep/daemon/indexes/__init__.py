"""The index at work: what is compared at start and after lost events, and what is written down at rest."""

"""For those who act on events: a handler is driven, and what it asks for is done."""

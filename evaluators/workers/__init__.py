"""Worker processes that can be killed, for work without a time bound."""

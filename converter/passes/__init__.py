"""Graph passes: each keeps the result, says what it did, and why it declined."""

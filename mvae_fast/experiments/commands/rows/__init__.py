"""Commands that answer about the rows of a file of a user's own."""

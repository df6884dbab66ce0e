"""What each command of `mvae-fast` does, and the options that they share."""

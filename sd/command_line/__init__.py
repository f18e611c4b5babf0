"""What all commands share: declared flags, one-line errors, safe terminal output."""

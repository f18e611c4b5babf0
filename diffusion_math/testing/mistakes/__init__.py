"""Names for what is wrong: exact values beside a catalogue of what people write in their place."""

"""Image files, JSON files and output folders: bounded reads, whole writes."""

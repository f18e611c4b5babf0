"""What can be checked of an object, found by the names of its tables and methods."""

"""Results, the pages that show them, and the files that hold them."""

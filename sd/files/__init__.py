"""Files of images and results: what is read and in which bounds, and how folders are written."""

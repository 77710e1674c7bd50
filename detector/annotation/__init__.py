"""Labels images in the browser and writes them in place."""

"""Style and script of the page that shows an explanation."""

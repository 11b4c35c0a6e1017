"""A circuit as one HTML page: `collect` gathers, `page` writes, `show` puts it into a notebook."""

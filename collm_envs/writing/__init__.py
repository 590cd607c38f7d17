"""Writing: short texts whose length, vocabulary and style must fit together."""

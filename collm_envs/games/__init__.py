"""Building games: agents place blocks in one shared world by text commands."""

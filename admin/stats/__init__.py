"""Stats: clicks from the stream into Postgres, and what can be asked of them."""

"""Links: the rows in Postgres, their way to Redis, and their routes."""

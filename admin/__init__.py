"""The admin: links, stats and everything else on Postgres; the worker lives here too."""

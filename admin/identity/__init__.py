"""Who calls: organizations, users, API keys, and the principal of a request."""

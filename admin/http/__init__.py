"""What every route shares: answers, bodies, lists, limits, idempotency, ids. Knows no noun."""

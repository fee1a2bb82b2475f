"""What every route shares: answers, bodies, pages of lists, request ids. Knows no noun."""

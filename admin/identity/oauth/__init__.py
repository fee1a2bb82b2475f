"""OAuth 2.0 for apps of others, as RFC 9700 wants it today: codes with PKCE, client credentials, tokens that rotate."""

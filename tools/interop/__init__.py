"""The server among programs of others: in front of their servers, and behind their agents."""

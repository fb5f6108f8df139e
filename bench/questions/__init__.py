"""Questions of our own, to measure retrieval with: `make eval`."""

"""What the API server refuses with 422, cause by cause."""

"""Bodies and answers of the REST API."""

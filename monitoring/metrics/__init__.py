"""Numbers over time: read from pods, kept in three resolutions, and asked for by pages and the API."""

"""Telling people and programs: what is wrong, and what happened to requests."""

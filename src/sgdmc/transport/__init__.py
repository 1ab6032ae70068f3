"""Rows that were never visited: barycenters on a line and completion."""

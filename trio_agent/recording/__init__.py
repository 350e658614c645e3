"""Recordings of turns: their format, and how one is made."""

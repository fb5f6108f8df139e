"""Watched folder to elements, chunks, vectors, record and indexes."""

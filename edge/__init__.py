"""The edge: address in, redirect out, one record per click."""

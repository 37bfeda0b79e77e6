"""Rivals and the ruler of Mobile CSP."""

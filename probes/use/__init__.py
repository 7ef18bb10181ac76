"""Probes that are kept and used: fitted, saved, applied, as a score, and to erase or steer a direction."""

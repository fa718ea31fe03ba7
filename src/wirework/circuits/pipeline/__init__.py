"""Circuits of many tasks of one model."""

"""Scores of nodes by gradient: attribution, integrated gradients, AtP*."""

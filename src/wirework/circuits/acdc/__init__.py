"""Circuits of heads and MLPs: which links between them a behaviour needs (ACDC, EAP)."""

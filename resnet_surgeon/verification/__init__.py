"""Proofs that a file is what its manifest says: of the document, of every tensor, and of what the network computes.

Nothing that wrote the file is trusted: formulas are worked out again with torch, activations are compared with
torchvision's. Writes nothing.
"""

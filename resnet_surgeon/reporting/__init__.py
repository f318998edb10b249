"""The report: one page about a file, for people: pictures, proofs, tensors, and how to load it. Needs no network and no
script to be read.
"""

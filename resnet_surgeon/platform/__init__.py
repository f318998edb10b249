"""The only room that knows the operating system: each thing that systems do differently, with what stands in for it
where it is missing. Knows bytes, descriptors and paths; no checkpoint, no error of ours.
"""

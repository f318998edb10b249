"""Numbers: the formulas of computed tensors as data, how they are evaluated, and what is drawn at random."""

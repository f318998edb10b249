"""Recipes: files that say what to build from what. One module for each step from the text to the outputs."""

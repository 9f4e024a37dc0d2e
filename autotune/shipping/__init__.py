"""Writes what is shipped with a model: facts about the candidate, its model card, and the files beside it."""

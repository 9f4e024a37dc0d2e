"""What goes out of the door: facts about a candidate, its model card, and the files beside the model."""

"""What is searched: parameters, their domains, recipes and sessions."""

"""Configurations of Microsoft Olive, read as sweep files: every key of one is accounted for in a ledger."""

"""Where stages run: worker processes of this machine."""

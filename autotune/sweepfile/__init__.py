"""The sweep file: what a user asks for."""

"""How the models that ship with Nightrank were made. Not part of the installed package."""

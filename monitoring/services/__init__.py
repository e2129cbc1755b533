"""Changes that people make to what monitoring does: checked, recorded, in one transaction."""

"""The search: what may vary, who proposes, who runs. Imports nothing, so that a space loads without Ray."""

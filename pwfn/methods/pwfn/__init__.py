"""PWFN: learned weight noise decides how far each weight may move to a value that the whole network shares."""

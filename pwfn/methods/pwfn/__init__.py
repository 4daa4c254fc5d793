"""PWFN: how far each weight may move to a value that the whole network shares depends on learned weight noise."""

"""EasyQuant: scales by the cosine of layer outputs; `search` is the entry."""

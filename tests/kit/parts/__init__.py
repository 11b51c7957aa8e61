"""What random models are made of: each part adds something, where something in them fits."""

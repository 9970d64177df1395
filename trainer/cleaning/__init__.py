"""``pfc data clean``: what a trained run knows about the labels it was trained on."""

"""``pfc top``: what the ranks' metrics endpoints say, as a table at the terminal."""

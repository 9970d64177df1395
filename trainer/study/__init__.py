"""``pfc study``: the same training under several losses and several amounts of wrong labels, and what it shows."""

"""Commands of ``pfc`` that send runs to schedulers and follow them."""

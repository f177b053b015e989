"""How spread the singular values of weights and representations are."""

"""What several experiments use: statistics, quadrature, networks, chains, options, the machine."""

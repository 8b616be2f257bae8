"""Networks: bridges, addresses, published ports, names. Hands out steps; makes nothing itself."""

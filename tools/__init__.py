"""What developers and the demo use: target hosts, the demo itself, the list of requirements."""

extra_network_registry = {}
extra_network_aliases = {}


def register_extra_network(extra_network):
    extra_network_registry[extra_network.name] = extra_network


def register_extra_network_alias(extra_network, alias):
    extra_network_aliases[alias] = extra_network


class ExtraNetworkParams:
    def __init__(self, items=None):
        self.items = items or []
        pairs = [item.split("=", 1) for item in self.items if "=" in item]
        self.named = dict(pairs)
        self.positional = [item for item in self.items if "=" not in item]

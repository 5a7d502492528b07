class NetworkModuleLora:
    def __init__(self, net, weights):
        self.network, self.network_key, self.sd_module = net, weights.network_key, weights.sd_module
        self.up_model = self.create_module(weights.w, "lora_up.weight")
        self.down_model = self.create_module(weights.w, "lora_down.weight")
        self.alpha = weights.w["alpha"].item()

    def create_module(self, weights, key, none_ok=False):
        import torch

        module = torch.nn.Linear(weights[key].shape[1], weights[key].shape[0], bias=False)
        with torch.no_grad():
            module.weight.copy_(weights[key])
        return module


class ModuleTypeLora:
    def create_module(self, net, weights):
        return NetworkModuleLora(net, weights) if "lora_up.weight" in weights.w else None

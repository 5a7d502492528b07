import os

import network
import network_lora
import torch
from safetensors.torch import load_file

module_types = [network_lora.ModuleTypeLora()]
available_networks = {}
available_network_aliases = {}
available_network_hash_lookup = {}
forbidden_network_aliases = {}
loaded_networks = []
networks_in_memory = {}


def load_network(name, network_on_disk):
    net = network.Network(name, network_on_disk)
    layers = {}
    for key, tensor in load_file(network_on_disk.filename).items():
        layer, _, part = key.partition(".")
        if layer in linears:
            weights = network.NetworkWeights(network_key=key, sd_key=layer, w={}, sd_module=linears[layer])
            layers.setdefault(layer, weights).w[part] = tensor
    for layer, weights in layers.items():
        made = (kind.create_module(net, weights) for kind in module_types)
        net.modules[layer] = next(module for module in made if module is not None)
    return net


def network_apply_weights(self):
    wanted = tuple((net.name, net.te_multiplier, net.unet_multiplier, net.dyn_dim) for net in loaded_networks)
    if getattr(self, "network_current_names", ()) == wanted:
        return
    if getattr(self, "network_weights_backup", None) is None:
        self.network_weights_backup = self.weight.detach().clone()
    self.weight.copy_(self.network_weights_backup)
    for net in loaded_networks:
        for module in net.modules.values():
            if module.sd_module is self:
                delta = module.up_model.weight @ module.down_model.weight
                self.weight.copy_(self.weight + net.unet_multiplier * delta)
    self.network_current_names = wanted


def update_available_networks_by_names(names):
    for name in names:
        folder = next(iter(folders))
        on_disk = network.NetworkOnDisk(name, os.path.join(folder, f"{name}.safetensors"))
        available_networks[name] = on_disk
        if on_disk.alias in available_network_aliases:
            forbidden_network_aliases[on_disk.alias.lower()] = 1
        available_network_aliases[name] = available_network_aliases[on_disk.alias] = on_disk
        available_network_hash_lookup[on_disk.shorthash] = on_disk


def list_available_networks():
    available_networks.clear()
    available_network_aliases.clear()
    forbidden_network_aliases.clear()
    names = [file[: -len(".safetensors")] for folder in folders for file in sorted(os.listdir(folder))]
    update_available_networks_by_names(names)


folders = []  # fake only: where the files are
linears = {}  # fake only: the loaded model's layers, by kohya key


@torch.no_grad()
def merge(*nets):  # fake only: what a generation with these tags leaves behind
    loaded_networks[:] = nets
    for linear in linears.values():
        network_apply_weights(linear)

import json
from collections import namedtuple

NetworkWeights = namedtuple("NetworkWeights", ["network_key", "sd_key", "w", "sd_module"])


class NetworkOnDisk:
    def __init__(self, name, filename):
        import enum

        from safetensors import safe_open

        self.name, self.filename = name, filename
        with safe_open(filename, "pt") as opened:
            # As sd_models.read_metadata_from_safetensors does.
            parsed = {key: json.loads(value) if value[:1] == "{" else value for key, value in opened.metadata().items()}
        self.metadata = parsed
        self.alias = self.metadata.get("ss_output_name", name)
        self.hash = self.metadata.get("sshs_model_hash", "")
        self.shorthash = self.hash[:12]
        self.sd_version = enum.Enum("SdVersion", "SD1").SD1

    def get_alias(self):
        return self.alias


class Network:
    def __init__(self, name, network_on_disk):
        self.name = self.mentioned_name = name
        self.network_on_disk = network_on_disk
        self.te_multiplier = self.unet_multiplier = 1.0
        self.dyn_dim = None
        self.modules = {}

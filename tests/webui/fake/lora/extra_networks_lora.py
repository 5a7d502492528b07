import networks  # noqa: F401


class ExtraNetworkLora:
    name = "lora"

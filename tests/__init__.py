import os

# pydantic 1 registers its ranges with hypothesis, which newer versions of hypothesis do not survive.
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")

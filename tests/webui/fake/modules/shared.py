from types import SimpleNamespace

cmd_opts = SimpleNamespace(lora_dir="", lowvram=False, medvram=False, api=False, nowebui=False, api_auth=None)
config_filename = "config.json"
loaded_hypernetworks = []
sd_model = None


class OptionInfo:
    def __init__(self, default=None, label="", component=None, component_args=None, onchange=None, section=None,
                 refresh=None, comment_before="", comment_after="", infotext=None, restrict_api=False,
                 category_id=None):  # fmt: skip
        self.default, self.label, self.section = default, label, section

    def info(self, info):
        return self

    def needs_reload_ui(self):
        return self


class Options:
    """Only values that were set are in `data`, as before the settings are registered."""

    def __init__(self, data_labels, restricted_opts):
        self.data, self.data_labels = {}, data_labels

    def set(self, key, value, is_api=False, run_callbacks=True):
        self.data[key] = value

    def save(self, filename):
        pass

    def add_option(self, key, info):
        self.data_labels[key] = info
        self.data.setdefault(key, info.default)


class State:
    def __init__(self):
        self.job, self.interrupted, self.stopping_generation, self.textinfo = "", False, False, None
        self.job_count = self.job_no = self.sampling_step = self.sampling_steps = 0
        self.current_image = None

    def begin(self, job="(unknown)"):
        self.job, self.interrupted, self.stopping_generation = job, False, False

    def end(self):
        self.job = ""

    def assign_current_image(self, image):
        self.current_image = image


opts = Options({}, ())
opts.lora_show_all, opts.samples_format = False, "png"
state = State()

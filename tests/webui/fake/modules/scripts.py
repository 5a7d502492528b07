from collections import namedtuple

AlwaysVisible = object()
ScriptClassData = namedtuple("ScriptClassData", ["script_class", "path", "basedir", "module"])
scripts_data = []


class Script:
    def title(self):
        raise NotImplementedError

    def show(self, is_img2img):
        return True

    def after_extra_networks_activate(self, p, *args, **kwargs):
        pass

extra_pages = []


def register_page(page):
    extra_pages.append(page)


def quote_js(s):
    return '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"'


class ExtraNetworksPage:
    def __init__(self, title):
        self.title, self.name = title, title.lower()

    def refresh(self):
        pass

    def read_user_metadata(self, item, use_cache=True):
        item["user_metadata"] = {}

    def search_terms_from_path(self, filename, possible_directories=None):
        return filename

    def find_preview(self, path):
        return None

    def find_embedded_preview(self, path, name, metadata):
        return f"./cover?item={name}" if "ssmd_cover_images" in metadata else None

    def find_description(self, path):
        return None

    def get_sort_keys(self, path):
        return {}

    def create_item(self, name, index=None):
        raise NotImplementedError

    def list_items(self):
        raise NotImplementedError

    def allowed_directories_for_previews(self):
        return []

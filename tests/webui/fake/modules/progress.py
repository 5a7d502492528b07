from collections import OrderedDict

current_task = None
pending_tasks = OrderedDict()

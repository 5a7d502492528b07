def git_tag():
    return "1.10.1"

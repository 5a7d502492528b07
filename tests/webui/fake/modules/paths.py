import tempfile

# No test leaves anything in the repository.
models_path = tempfile.mkdtemp()

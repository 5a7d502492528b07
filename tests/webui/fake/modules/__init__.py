"""A WebUI as far as our code touches it; test_contract.py holds all names and signatures against a real one."""

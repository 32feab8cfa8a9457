"""Settings for all tests."""

from hypothesis import settings

# How long one example takes says nothing on a busy machine, and speed is not tested here.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

"""Tests marked `slow` run only when asked for: ``python -m pytest tests/reliability -m slow``."""


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes a minute or more; runs only with -m slow")


def pytest_collection_modifyitems(config, items):
    if config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]

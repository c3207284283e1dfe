"""Carries a call's context along: into threads, and into what a pool runs. Gives the log's lines the levels of their records.

What is not imported yet is changed as it is imported.
"""

import _thread
import functools
import sys
import threading
from _frozen_importlib_external import PathFinder

from fob.calls import current
from fob.log import Stream


def install():
    for module, name in ((_thread, "start_new_thread"), (threading, "_start_new_thread"), (threading, "_start_joinable_thread")):
        if hasattr(module, name):  # the last two are of different versions
            setattr(module, name, _starter(getattr(module, name)))
    later = {}
    for name, change in (("logging", _logging), ("concurrent.futures.thread", _executor), ("multiprocessing.pool", _pool)):
        if name in sys.modules:
            change(sys.modules[name])
        else:
            later[name] = change
    if later:
        sys.meta_path.insert(0, _Watch(later))


class _Watch:
    """Changes modules once they are imported."""

    def __init__(self, later):
        self._later = later

    def find_spec(self, name, path=None, target=None):
        change = self._later.get(name)
        spec = change and PathFinder.find_spec(name, path, target)
        if not spec:
            return None
        plain = spec.loader.exec_module

        def exec_module(module):
            plain(module)
            if self._later.pop(name, None):
                change(module)

        spec.loader.exec_module = exec_module
        return spec


def _run(call, function, /, *args, **kwargs):
    current.set(call)
    return function(*args, **kwargs)


def _starter(plain):
    def start(function, *args, **kwargs):
        call = current.get()
        return plain(function if call is None else functools.partial(_run, call, function), *args, **kwargs)

    return start


def _executor(module):
    """A thread of a pool runs for whoever gives it work, not for whoever made it start."""
    plain = module.ThreadPoolExecutor.submit

    @functools.wraps(plain)
    def submit(self, fn, /, *args, **kwargs):
        return plain(self, _run, current.get(), fn, *args, **kwargs)

    module.ThreadPoolExecutor.submit = submit


def _pool(module):
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        setattr(module.ThreadPool, name, _giver(getattr(module.ThreadPool, name)))


def _giver(plain):
    @functools.wraps(plain)
    def give(self, func, *args, **kwargs):
        return plain(self, functools.partial(_run, current.get(), func), *args, **kwargs)

    return give


def _logging(module):
    plain = module.StreamHandler.emit

    @functools.wraps(plain)
    def emit(self, record):
        stream = self.stream
        if type(stream) is not Stream:
            return plain(self, record)
        with stream.at(_level(record.levelno)):
            return plain(self, record)

    module.StreamHandler.emit = emit


def _level(number):
    return b"error" if number >= 40 else b"warn" if number >= 30 else b"info" if number >= 20 else b"debug"

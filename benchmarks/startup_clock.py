"""Runs a program of a checkout and writes how long each part takes; `startup.py` starts it.

python benchmarks/startup_clock.py RESULT STARTED PROGRAM [ARGUMENT ...]

What a part is goes by the names of functions, which version 0.1 has too: so the program is run as
it is. It ends where its first progress bar moves. RESULT gets a JSON dict, part -> (wall,
processor) seconds; STARTED is `time.time()` of the start.
"""

import builtins
import functools
import json
import os
import pathlib
import runpy
import sys
import threading
import time

PARTS = {
    "data": ("resolve_data", "load_index", "load_checked_index", "load_split", "training_dataset"),
    "model": ("build_model", "build_optimizer", "load_model", "load_predictor", "load_source"),
}
PART_OF = {name: part for part, names in PARTS.items() for name in names}
TENSORFLOW = "tensorflow.python.eager.polymorphic_function.polymorphic_function"
ITERATORS = {  # module -> classes whose `__next__` waits for data
    "tensorflow.python.data.ops.iterator_ops": ("OwnedIterator",),
    "tensorflow.python.distribute.input_lib": ("DistributedIteratorBase",),
}


class Clock:
    """Seconds by part; what a part calls counts to the inner part alone."""

    def __init__(self, result, started):
        self.result = pathlib.Path(result)
        self.started = started
        self.start = time.time() - started, time.process_time()
        self.seconds = {"start": self.start}
        self.inner = threading.local()
        self.seen = {}

    def timed(self, part, function):
        """The function, timed."""

        @functools.wraps(function)
        def call(*arguments, **settings):
            stack = self.inner.__dict__.setdefault("stack", [])
            before = self.now()
            stack.append((0.0, 0.0))
            try:
                return function(*arguments, **settings)
            finally:
                whole = difference(self.now(), before)
                own = difference(whole, stack.pop())
                self.seconds[part] = total(self.seconds.get(part, (0.0, 0.0)), own)
                if stack:
                    stack[-1] = total(stack[-1], whole)

        return call

    def now(self):
        return time.time() - self.started, time.process_time()

    def watch_imports(self):
        """Times what is imported, and then the functions that have come with it."""
        original = builtins.__import__
        timed = self.timed("imports", original)

        def imported(name, *arguments, **settings):
            if name in sys.modules or getattr(self.inner, "imports", False):
                return original(name, *arguments, **settings)
            self.inner.imports = True
            try:
                return timed(name, *arguments, **settings)
            finally:
                self.inner.imports = False
                self.watch_functions()

        builtins.__import__ = imported

    def watch_functions(self):
        new = sys.modules.keys() - self.seen.keys()
        self.seen.update(dict.fromkeys(new))
        for name in new:
            module = sys.modules[name]
            if name.startswith("tf_panoptic_fpn") or name == "__main__":
                for key in PART_OF.keys() & vars(module).keys():
                    if not hasattr(vars(module)[key], "__wrapped__"):
                        setattr(module, key, self.timed(PART_OF[key], vars(module)[key]))
            for kind in ITERATORS.get(name, ()):
                iterator = getattr(module, kind)
                iterator.__next__ = self.timed("data", iterator.__next__)
            if name == TENSORFLOW:
                self.watch_graphs(module.Function)
            if name == "tqdm.std":
                module.tqdm.update = lambda *_: self.end()

    def watch_graphs(self, kind):
        """Times the tracing and the first run of what is called outside of graphs."""
        import tensorflow as tf

        original, called = kind.__call__, set()

        def call(function, *arguments, **settings):
            if id(function) in called or not tf.executing_eagerly():
                return original(function, *arguments, **settings)
            called.add(id(function))
            self.timed("tracing", function.get_concrete_function)(*arguments, **settings)
            return self.timed("first run", original)(function, *arguments, **settings)

        kind.__call__ = call

    def end(self):
        """Writes the result and ends the process as it is."""
        whole = self.now()
        known = functools.reduce(total, self.seconds.values())
        self.seconds["rest"] = difference(whole, known)
        self.seconds["all"] = whole
        self.result.write_text(json.dumps(self.seconds), encoding="utf-8")
        sys.stdout.flush()
        os._exit(0)


def total(first, second):
    return first[0] + second[0], first[1] + second[1]


def difference(later, earlier):
    return later[0] - earlier[0], later[1] - earlier[1]


def main():
    result, started, program, *arguments = sys.argv[1:]
    clock = Clock(result, float(started))
    clock.watch_imports()
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    clock.end()


if __name__ == "__main__":
    main()

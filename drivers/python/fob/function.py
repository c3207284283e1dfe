"""Loads the user's function, binds its arguments and calls it."""

import contextvars
import linecache
import sys
import types

from fob import Response, fork
from fob.annotations import converter
from fob.calls import current
from fob.errors import FILE, BadRequest, Failure, TooLarge, raised, text_of
from fob.stream import Items, Stream
from fob.values import json_type, parse_object, render_result

CO_ASYNC = 0x80 | 0x200  # inspect's CO_COROUTINE and CO_ASYNC_GENERATOR
PLAIN = frozenset((dict, list, str, int, float, bool, type(None)))  # types that most functions return, and that are not iterators


def load(code, end_call):
    """Runs the user's code as a module and returns its Function. end_call is called in the thread in which a call ended."""
    code = code.removeprefix("\ufeff")
    # Without a modification time, linecache does not look for the file.
    linecache.cache[FILE] = (len(code), None, code.splitlines(True), FILE)
    try:
        compiled = compile(code, FILE, "exec", dont_inherit=True)
    except SyntaxError as e:
        raise Failure(422, "does_not_compile", e.msg, type=type(e).__name__, line=e.lineno or 1) from None
    except (ValueError, MemoryError, RecursionError, OverflowError) as e:
        raise Failure(422, "does_not_compile", text_of(e) or "nested too deeply", type=type(e).__name__) from None

    forget = None
    if "asyncio" in code:  # it takes long to import, so do it now rather than in the first call
        from fob.loop import forget
    module = types.ModuleType("function")
    module.__file__ = FILE
    sys.modules["function"] = module  # where pickle and dataclasses look up classes
    context = contextvars.Context()
    try:
        context.run(exec, compiled, module.__dict__)
    except BaseException as e:  # noqa: B902, SystemExit too
        if fork.forked():
            fork.leave(e)
        raise raised(422, "load_failed", e) from None
    finally:
        if forget is not None:
            forget()
    if fork.forked():
        fork.leave()
    callme = module.__dict__.get("callme")
    if callme is None:
        raise Failure(422, "no_callme", f"the code defines no function callme; {_instead(module)}")
    if not callable(callme):
        raise Failure(422, "no_callme", f"callme is not a function but {type(callme).__name__}")
    try:
        return Function(callme, end_call, forget, context)
    except ValueError as e:  # a builtin without a signature
        raise Failure(422, "no_callme", f"callme takes nobody knows what: {text_of(e)}; wrap it in a def") from None
    except BaseException as e:  # noqa: B902, the function's own signature may raise anything
        raise raised(422, "load_failed", e) from None


USUAL = ("main", "handler", "lambda_handler", "handle", "run", "call_me", "callMe", "Callme", "app", "hello")


def _instead(module):
    """Returns how to give a module without callme one."""
    own = module.__dict__
    found = [name for name in USUAL if callable(own.get(name))]
    found += [name for name, value in own.items() if type(value) is types.FunctionType and value.__module__ == "function" and name not in USUAL]
    if not found:
        return "add: def callme(): ..."
    name = found[0]
    return f"it defines {name}: rename that to callme, whose parameters are the call's arguments by name, or add: callme = {name}"


class _Default:
    """Stands for a default value when the signature is shown. Callers need not see the value."""

    def __repr__(self):
        return "..."


_DEFAULT = _Default()


class Function:
    """A loaded callme. Its signature is analysed once, here."""

    def __init__(self, callme, end_call, forget, context):
        import inspect  # imported after boot, like traceback

        signature = inspect.signature(callme)
        self.callme = callme
        self.context = context  # as the import left it; each call runs in a copy
        # A copied context shares the decimal context, which is changed in place.
        self.decimal = next((value.copy() for var, value in context.items() if var.name == "decimal_context"), None)
        self.end_call = end_call
        self.forget = forget  # clears what a call left of asyncio in its thread; None for a function that does not use asyncio
        kinds = inspect.Parameter
        shown = [p if p.default is kinds.empty else p.replace(default=_DEFAULT) for p in signature.parameters.values()]
        self.text = f"callme{signature.replace(parameters=shown)}"
        named = [p for p in signature.parameters.values() if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
        self.names = frozenset(p.name for p in named)
        self.required = frozenset(p.name for p in named if p.default is kinds.empty) - {"request"}
        self.positional = [(p.name, p.default) for p in named if p.kind is kinds.POSITIONAL_ONLY]
        self.takes_request = "request" in self.names
        self.catches_all = any(p.kind is kinds.VAR_KEYWORD for p in signature.parameters.values())
        self.bare = not self.names and not self.catches_all
        scope = getattr(inspect.unwrap(callme), "__globals__", {})
        found = ((p.name, *converter(p.annotation, scope)) for p in named)
        self.converters = {name: (convert, many) for name, convert, many in found if convert}
        self.codes = frozenset(_codes(callme))
        self.loop = None
        if any(c.co_flags & CO_ASYNC for c in self.codes):
            self._the_loop()  # it takes long to import, so do it now rather than in the first call

    def call(self, text, body, request, form, call):
        """Calls the function with the text arguments (JSON bytes or None) and the body. form is the Content-Type of a body that is a form. The code runs for call.

        Returns JSON bytes, the Response that the function returned, or a
        Stream. Raises a Failure.
        """
        if self.bare and text is None and not body:
            args, kwargs = (), {}
        else:
            args, kwargs = self._bind(text, body, request, form)
        context = self.context.copy()
        context.run(current.set, call)
        if self.decimal is not None:
            context.run(sys.modules["decimal"].setcontext, self.decimal.copy())
        try:
            value = context.run(self.callme, *args, **kwargs)
            if type(value) not in PLAIN:
                if fork.forked():
                    fork.leave()
                if hasattr(value, "__await__"):
                    value = self._the_loop().wait(value, context)
                response = value if isinstance(value, Response) else None
                items = self._items(value if response is None else response.body, context)
                if items is not None:
                    return Stream(items, response, self._failure)
                if response is not None:
                    return response
        except BaseException as e:  # noqa: B902, SystemExit too
            raise self._failure(e) from None
        return render_result(value)

    def _items(self, value, context):
        """Returns a plain iterator that runs in a context, if value is an iterator of either kind; otherwise None."""
        kind = type(value)
        if hasattr(kind, "__next__"):
            return Items(value, context)
        if hasattr(kind, "__anext__"):
            return self._the_loop().items(value, context)
        return None

    def _failure(self, e):
        if fork.forked():
            fork.leave(e)
        if isinstance(e, (TooLarge, BadRequest)):
            return e
        if isinstance(e, (TypeError, ValueError)):
            last = e.__traceback__
            while last.tb_next is not None:
                last = last.tb_next
            # Without a frame beyond ours, the arguments did not fit the signature.
            if last is e.__traceback__ or last.tb_frame.f_code in self.codes:
                return raised(404, "bad_arguments", e)
        return raised(500, "raised", e)

    def _the_loop(self):
        if self.loop is None:
            from fob.loop import Loop

            self.loop = Loop(self.end_call)
        return self.loop

    def _bind(self, text, body, request, form):
        args = _texts(text) if text else {}
        if form is None:
            typed = self._typed(body, request)
        else:
            from fob.form import arguments  # most functions never get a form

            typed = {}
            fields = arguments(form.decode("latin-1"), body)
            self._refuse_twice(args, fields)
            args.update(fields)
        if args:
            self._convert(args)
            if typed:
                self._refuse_twice(args, typed)
                args.update(typed)
        else:
            args = typed
        if self.takes_request:
            args["request"] = request
            if not self.catches_all:
                args = {name: value for name, value in args.items() if name in self.names}
        names = args.keys()
        if not (self.required <= names and (self.catches_all or names <= self.names)):
            self._refuse(names)
        if not self.positional:
            return (), args
        first = []
        for name, default in self.positional:
            first.append(args.pop(name, default))
        return first, args

    def _typed(self, body, request):
        if not body:
            return {}
        if request is None:
            return parse_object(body, "the body")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            return {}
        try:
            return parse_object(body, "the body")
        except Failure:  # the function has to judge it
            return {}

    def _convert(self, args):
        """Converts texts, and lists of texts, as the annotations say."""
        for name, value in args.items():
            convert, many = self.converters.get(name, (None, False))
            if many:
                value = args[name] = value if type(value) is list else [value]
            elif type(value) is list:
                if name in self.names or not self.takes_request:
                    raise Failure(400, "bad_request", f"{name} is given {_times(value)}; a parameter annotated as a list, such as list[str], takes that")
                value = args[name] = value[-1]  # as in request.query
            if convert:
                try:
                    args[name] = convert(value)
                except ValueError as e:
                    raise Failure(404, "bad_arguments", f"{name}: {e}") from None

    def _refuse_twice(self, text, typed):
        twice = text.keys() & typed.keys()
        if self.takes_request and not self.catches_all:
            twice &= self.names
        if twice:
            raise Failure(404, "bad_arguments", f"{_list(twice)} given twice, in the query and in the body")

    def _refuse(self, names):
        wrong = []
        if missing := self.required - names:
            wrong.append(f"missing parameters: {_list(missing)}")
        if not self.catches_all and (surplus := names - self.names):
            wrong.append(f"unknown parameters: {_list(surplus)}")
        raise Failure(404, "bad_arguments", f"{'; '.join(wrong)}; the function is {self.text}")


def _texts(text):
    """Reads Fob-Args."""
    args = parse_object(text, "Fob-Args")
    for name, value in args.items():
        if type(value) is not str and not (type(value) is list and value and all(type(item) is str for item in value)):
            raise Failure(400, "bad_request", f"Fob-Args must be an object of strings, and lists of them; {name} is {json_type(value)}")
    return args


def _times(values):
    return {1: "as a list", 2: "twice"}.get(len(values), f"{len(values)} times")


def _list(names):
    return ", ".join(sorted(names))


def _codes(callme):
    """Yields the code objects of callme and of the functions that it wraps (functools.wraps)."""
    seen = set()
    while callme is not None and id(callme) not in seen:
        seen.add(id(callme))
        function = callme if hasattr(callme, "__code__") else getattr(callme, "func", None) or type(callme).__call__
        code = getattr(function, "__code__", None)
        if code is not None:
            yield code
        callme = getattr(callme, "__wrapped__", None)

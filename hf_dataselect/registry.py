"""
The folder is the registry: a method's name is the name of its file in `hf_dataselect/selectors/`, a policy's that of
its file in `hf_dataselect/policies/`. Other packages list their methods as entry points.
"""

from typing import Any, get_args

from .declared import method_names, policy_names
from .engines.forward.wants import Want
from .options import class_of_module, imported_class, mapping_of, nearest, require_extras, typed_options
from .plugins import described, plugin_of, plugins, warn_of_clash
from .policy import Policy
from .selector import Need, Selector, method_name


#: Where what `needs()` names is given; users look for it among the options of the method, too.
GIVEN_BY = {
    "target": "selection_target",
    "judge": "judge",
    "model": "model_name_or_path",
    "budget": "selection_budget",
    "diversity": "selection_diversity",
}


def selector_class(name: str) -> type[Selector]:
    """
    The class of a method: `ifd`, a name that another package lists, or `package.module:Class`.

    Raises:
        `ValueError`: no such method (with the nearest right name), one that several packages list, or the class is no
        selector.
    """
    if ":" in name:
        return imported_class(name, Selector, f"`selection_method={name!r}`")
    if name not in method_names():
        point = plugin_of(name)
        if point is None:
            if name in policy_names():
                raise ValueError(f"`selection_method={name!r}` is a policy: give `selection_policy: {name}`.")
            known = sorted({*method_names(), *plugins()})
            raise ValueError(f"`selection_method={name!r}` does not exist{nearest(name, known)}")
        return imported_class(point.value, Selector, f"`selection_method={name!r}`, {described(point)},")
    warn_of_clash(name)
    return class_of_module(f"{__package__}.selectors.{name}", Selector)


def load_selector(method: str | Selector, kwargs: dict[str, Any] | str | None = None) -> Selector:
    """
    A selector by name, with its options typed and checked.

    Args:
        method (`str` or [`Selector`]):
            `ifd`, a name that another package lists, `package.module:Class`, or an instance (then without `kwargs`).
        kwargs (`dict` or `str`, *optional*):
            Options, a dict or JSON; text such as `"5e-5"` becomes what the field is declared to be.

    Raises:
        `ValueError`: unknown method or option (with the nearest right name), a value of the wrong type or out of
        range, or one that the selector refuses.
        `ImportError`: an optional package that the method needs is missing; the message names the extra.
    """
    kwargs = mapping_of(kwargs, "selection_kwargs")
    if isinstance(method, type):
        raise ValueError(f"`selection_method`: give an instance, `{method.__name__}(...)`, or a name.")
    if isinstance(method, Selector):
        if kwargs:
            raise ValueError("`selection_kwargs` can't be given together with a selector instance.")
        selector = method
    else:
        hint = "(Those of a recipe's other method are cleared by `--selection_kwargs '{}'`; `compare` takes those of "
        hint += "each method by its name: `--method_kwargs.NAME.OPTION`.)"
        for name in kwargs.keys() & GIVEN_BY.keys():
            hint = f"`{name}` is given by `{GIVEN_BY[name]}`, for every method that takes one. {hint}"
        selector = typed_options(selector_class(method), kwargs, "selection_kwargs", f"{method!r} has", hint)
    if unknown := set(selector.needs()) - set(get_args(Need)):
        raise ValueError(
            f"`{method_name(selector)}` needs {', '.join(map(repr, sorted(unknown)))}: needs() may name "
            f"{', '.join(map(repr, get_args(Need)))}."
        )
    if unwanted := set(selector.wants()) - set(get_args(Want)):
        raise ValueError(
            f"`{method_name(selector)}` wants {', '.join(map(repr, sorted(unwanted)))}: wants() may name "
            f"{', '.join(map(repr, get_args(Want)))}."
        )
    require_extras(method_name(selector), selector.extras())
    return selector


def load_member(option: str, method: str, kwargs: dict[str, Any] | None = None) -> Selector:
    """
    As [`load_selector`], for a method whose scores another one reads: errors name its option that gives the method.

    Raises:
        `ImportError`, `ValueError`: as there; or a method that gives no scores of its own.
    """
    try:
        selector = load_selector(method, kwargs)
    except ImportError as error:
        raise ImportError(f"`selection_kwargs`: {option}: {error}") from error
    except ValueError as error:
        raise ValueError(f"`selection_kwargs`: {option}: {error}") from error
    if selector.fixed_budget or "training" in selector.needs():
        raise ValueError(
            f"`selection_kwargs`: {option}={method!r} gives no scores of its own: name another method, or `column` "
            "for numbers that the rows have."
        )
    return selector


def policy_class(name: str) -> type[Policy]:
    """
    The class of a policy: `info_batch`, or `package.module:Class`.

    Raises:
        `ValueError`: no such policy (with the nearest right name), or the class is not a policy.
    """
    if ":" in name:
        return imported_class(name, Policy, f"`selection_policy={name!r}`")
    if name not in policy_names():
        if name in method_names():
            raise ValueError(f"`selection_policy={name!r}` is a method: give `selection_method: {name}`.")
        raise ValueError(f"`selection_policy={name!r}` does not exist{nearest(name, policy_names())}")
    return class_of_module(f"{__package__}.policies.{name}", Policy)


def load_policy(name: str, kwargs: dict[str, Any] | str | None = None) -> Policy:
    """
    A policy by name, with its options typed and checked.

    Raises:
        `ValueError`: unknown policy or option, or a value of the wrong type or out of range.
    """
    return typed_options(policy_class(name), kwargs, "selection_policy_kwargs", f"{name!r} has")

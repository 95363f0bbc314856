"""The entry points, one for each deployed function. Each is imported only when it is called."""

import importlib
from typing import Any

_MODULES = {
    "store_upload": "functions.store.handler",
    "delete_resource": "functions.delete.handler",
    "export_resource": "functions.export.handler",
    "search": "functions.search.handler",
    "commands": "functions.commands.handler",
    "notify": "functions.notify.handler",
    "watch_studies": "functions.watch.handler",
}


def __getattr__(name: str) -> Any:
    """PEP 562: `functions-framework --target NAME` looks the function up here. Settings are read
    then."""
    if name not in _MODULES:
        raise AttributeError(name)
    import functions_framework

    from functions.common.errors import SettingsError
    from functions.common.log import replace_library_logs

    replace_library_logs()

    try:
        function = functions_framework.http(importlib.import_module(_MODULES[name]).entry_point())
    except SettingsError as error:
        raise SystemExit(
            f"{name}: {error}"
        ) from None  # one clear line, and the deployment fails early
    globals()[name] = function  # it is looked up more than once
    return function

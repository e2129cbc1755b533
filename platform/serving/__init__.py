"""The model server that runs inside a pod, installed in environments as ``pilothouse_serving``.

It shares its environment with the user's code, so it forces no versions on it: relative imports only,
Python 3.8 and later, and nothing but Starlette and uvicorn beside the standard library.
"""

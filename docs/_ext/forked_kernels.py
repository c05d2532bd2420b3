"""Kernels for the executed pages, forked from one process that has made the imports.

A kernel of its own keeps a page apart from the others, but most of its start is imports that all pages share. So one process makes these
once per build, and forks itself for every page. Jupyter finds it by a kernel specification in the place of "python3", whose command is this
file: `connect` hands its arguments, folder, environment and streams to that process, and lives as long as the kernel.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

SHARED = (
    *("ipykernel.debugger", "ipykernel.kernelapp", "ipykernel.zmqshell"),
    *("matplotlib.backends.backend_agg", "matplotlib.pyplot", "mplhep"),
    *("scipy.stats", "sklearn.ensemble", "torch._dynamo", "pofx.simulators"),
)


def setup(app):
    """Start the process that forks, tell Jupyter of it, and end it after the build."""
    folder = tempfile.TemporaryDirectory()
    address = Path(folder.name, "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        command = [sys.executable, "-Xfrozen_modules=off", __file__, "serve"]  # the option is what ipykernel asks for
        server = subprocess.Popen(command, stdin=listener, start_new_session=True)

    specification = Path(folder.name, "kernels", "python3", "kernel.json")
    specification.parent.mkdir(parents=True)
    command = [sys.executable, "-S", "-E", __file__, "connect", str(address), "-f", "{connection_file}"]
    specification.write_text(json.dumps({"argv": command, "display_name": "Python 3, forked", "language": "python"}))
    os.environ["JUPYTER_PATH"] = os.pathsep.join([folder.name, *filter(None, [os.environ.get("JUPYTER_PATH")])])

    def stop(*_):
        server.terminate()
        server.wait()
        folder.cleanup()

    app.connect("build-finished", stop)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def connect(address, *arguments):
    """Ask for a kernel and wait for its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Jupyter interrupts a kernel before it asks it to end
    asked = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        socket.send_fds(line, [b"\n"], [0, 1, 2])
        line.sendall(json.dumps(asked).encode() + b"\n")
        return int(line.recv(8) or 1)


def serve():
    """Fork a kernel for everyone who connects to the socket that is standard input; end those whose client has gone."""
    sys.path.pop(0)  # the folder of this file
    os.environ |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "JPY_PARENT_PID": str(os.getpid())}
    import_shared()
    gc.freeze()  # what is shared is neither searched for garbage nor taken apart at the end
    gc.set_threshold(10_000, 20, 100)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    parent, listener, kernels = os.getppid(), socket.socket(fileno=0), {}
    try:
        while os.getppid() == parent:
            ready, _, _ = select.select([listener, *kernels], [], [], 0.1)
            for client in kernels.keys() & set(ready):  # a client has no more to say: it has gone
                end(kernels[client])
            if listener in ready:
                client, _ = listener.accept()
                streams, asked = receive(client)
                kernels[client] = os.fork()
                if not kernels[client]:
                    for line in (listener, *kernels):
                        line.close()
                    kernels = {}
                    return become_kernel(streams, **asked)
                for stream in streams:
                    os.close(stream)
            reap(kernels)
    finally:
        for kernel in kernels.values():
            end(kernel)
    return 0


def import_shared():
    """Import what pages use, all public names of pofx included."""
    for name in SHARED:
        importlib.import_module(name)
    pofx = importlib.import_module("pofx")
    for name in pofx.__all__:
        getattr(pofx, name)


def receive(client):
    """What a client hands over: its streams, and the rest."""
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile() as text:
        return streams, json.loads(text.readline())


def reap(kernels):
    """Tell the clients of kernels that have ended."""
    for client, kernel in list(kernels.items()):
        ended, status = os.waitpid(kernel, os.WNOHANG)
        if ended:
            with suppress(OSError), client:
                client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            del kernels[client]


def end(kernel):
    """Kill a kernel with what its cells have started."""
    with suppress(ProcessLookupError):
        os.killpg(kernel, signal.SIGKILL)


def become_kernel(streams, arguments, folder, environment):
    """In the fork: take over what a kernel is started with, and be one."""
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    IPKernelApp.launch_instance(arguments)
    return 0


if __name__ == "__main__":
    sys.exit({"connect": connect, "serve": serve}[sys.argv[1]](*sys.argv[2:]))

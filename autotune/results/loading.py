"""How to load a kept model where it is deployed: a short script, and the packages to install."""

from __future__ import annotations

from pathlib import Path

from autotune.providers import Provider

LOAD = "load.py"


def load_script(provider: Provider) -> str:
    """Return a script that answers a prompt with the model in the folder `onnx` beside it, on its provider."""
    registering, opening = opening_lines(provider)
    lines = [
        f'"""Answer a prompt with this model on the execution provider {provider.name}: python {LOAD} "a prompt"',
        "",
        f'Install: {provider.install}',
        *([f"The machine needs {provider.needs}."] if provider.needs else []),
        '"""',
        "import pathlib",
        "import sys",
        "",
        "import onnxruntime_genai as og",
    ]  # fmt: skip
    lines += registering or [""]
    lines += opening
    lines += [
        "model = og.Model(config)",
        "tokenizer = og.Tokenizer(model)",
        "parameters = og.GeneratorParams(model)",
        "parameters.set_search_options(max_length=256, do_sample=False)",
        "generator = og.Generator(model, parameters)",
        "generator.append_tokens(tokenizer.encode(sys.argv[1]))",
        "while not generator.is_done(): generator.generate_next_token()",
        'sys.stdout.buffer.write(tokenizer.decode(generator.get_sequence(0)).encode() + b"\\n")',
    ]
    return "\n".join(lines) + "\n"


def opening_lines(provider: Provider) -> tuple[list[str], list[str]]:
    """Return the lines of a script that register a provider, where it is a plugin, and those that make its `config`."""
    registering: list[str] = []
    if provider.plugin is not None:
        registering = [
            f"import {provider.plugin.module} as plugin",
            "",
            f'og.register_execution_provider_library("{provider.runtime_name}", plugin.get_library_path())',
        ]
    elif provider.library:
        name = Path(provider.library).name
        registering = [
            "",
            f'og.register_execution_provider_library("{provider.runtime_name}", "{name}")  # where it lies',
        ]
    opening = ['config = og.Config(str(pathlib.Path(__file__).parent / "onnx"))']
    if provider.genai_name is not None and provider.builds_as == "cpu":  # else the model's own settings name it
        opening.append(f'config.append_provider("{provider.genai_name}")')
    return registering, opening

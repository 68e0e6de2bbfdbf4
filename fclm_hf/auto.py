"""Registration of FCLM with the Auto classes and pipelines of transformers.

After `import fclm_hf`, `AutoModelForImageMatting.from_pretrained`, the other Auto classes and
`pipeline("referring-matting")` know FCLM, whatever was imported first. Importing their modules just to register would
take seconds, as they import torch, and make even `fclm --help` wait for it. transformers offers nothing lazier: its
registries take classes, not names, it resolves the names of its own lazy mappings inside `transformers.models` only,
and it reads no entry points.

So each class is registered, through the public `register` methods, right after the module that holds its registry has
been imported: at once if it has been already, otherwise from a finder on `sys.meta_path`, a post-import hook as in
PEP 369. The finder changes neither what is imported nor how. It waits until the outermost import of transformers or
fclm_hf is done, since the classes of FCLM need other modules of transformers that may import the registries themselves
(`CLIPTextConfig` does), and removes itself once everything is registered.
"""

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .checkpoints import LITE_CHECKPOINT


_TASK = "referring-matting"


def _register_config() -> None:
    """Register with `AutoConfig`."""
    from transformers import AutoConfig

    from .configuration_fclm import FCLMConfig

    AutoConfig.register(FCLMConfig.model_type, FCLMConfig, exist_ok=True)


def _register_models() -> None:
    """Register with `AutoModel` and `AutoModelForImageMatting`."""
    from transformers import AutoModel, AutoModelForImageMatting

    from .configuration_fclm import FCLMConfig
    from .modeling_fclm import FCLMForImageMatting, FCLMModel

    AutoModel.register(FCLMConfig, FCLMModel, exist_ok=True)
    AutoModelForImageMatting.register(FCLMConfig, FCLMForImageMatting, exist_ok=True)


def _register_image_processors() -> None:
    """Register with `AutoImageProcessor`."""
    from transformers import AutoImageProcessor
    from transformers.utils import is_torchvision_available

    from .configuration_fclm import FCLMConfig
    from .image_processing_pil_fclm import FCLMImageProcessorPil

    classes = {"pil": FCLMImageProcessorPil}
    if is_torchvision_available():
        from .image_processing_fclm import FCLMImageProcessor

        classes["torchvision"] = FCLMImageProcessor
    AutoImageProcessor.register(FCLMConfig, image_processor_classes=classes, exist_ok=True)


def _register_processor() -> None:
    """Register with `AutoProcessor`."""
    from transformers import AutoProcessor

    from .configuration_fclm import FCLMConfig
    from .processing_fclm import FCLMProcessor

    AutoProcessor.register(FCLMConfig, FCLMProcessor, exist_ok=True)


def _register_pipeline() -> None:
    """Register the "referring-matting" pipeline."""
    from transformers import AutoModelForImageMatting
    from transformers.pipelines import PIPELINE_REGISTRY

    from .pipeline_fclm import ReferringMattingPipeline

    if _TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            _TASK,
            pipeline_class=ReferringMattingPipeline,
            pt_model=AutoModelForImageMatting,
            default={"model": (LITE_CHECKPOINT, "main")},
            type="multimodal",
        )
        logging.getLogger("transformers.pipelines").addFilter(_is_not_about_embedded_checkpoint)


def _is_not_about_embedded_checkpoint(record: logging.LogRecord) -> bool:
    """Return False for the warning that a default model may change on the Hub, as this one comes with the package."""
    return not str(record.msg).startswith(f"No model was supplied, defaulted to {LITE_CHECKPOINT} ")


# the module that holds a registry, and what to do once it has been imported
_REGISTRATIONS: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.image_processing_auto": _register_image_processors,
    "transformers.models.auto.processing_auto": _register_processor,
    "transformers.pipelines": _register_pipeline,
}


def register() -> None:
    """Register FCLM with all Auto classes and pipelines now, which imports them."""
    for function in _REGISTRATIONS.values():
        function()


def register_when_imported() -> None:
    """Register FCLM with the Auto classes and pipelines that have been imported, and with the others once they are."""
    if not any(isinstance(finder, _RegisteringFinder) for finder in sys.meta_path):
        finder = _RegisteringFinder()
        sys.meta_path.insert(0, finder)
        finder.register_imported()


class _RegisteringFinder(MetaPathFinder):
    """Finder that leaves finding to the others, and registers FCLM after an import that loaded a registry."""

    def __init__(self) -> None:
        self._pending = dict(_REGISTRATIONS)
        self._thread = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders give, made to call [`register_imported`] afterwards."""
        if fullname.partition(".")[0] not in ("transformers", "fclm_hf"):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                self._run_nested(execute, module)
                self.register_imported()

            spec.loader.exec_module = execute_and_register  # this loader belongs to this module alone
        return spec

    def register_imported(self) -> None:
        """Register with what has been imported, unless an import is still under way in this thread."""
        if getattr(self._thread, "depth", 0):
            return
        while due := [name for name in self._pending if name in sys.modules]:
            for name in due:
                self._run_nested(_REGISTRATIONS[name])
                # only now: another thread must not find it done before it is
                self._pending.pop(name, None)
        if not self._pending and self in sys.meta_path:
            sys.meta_path.remove(self)

    def _run_nested(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function; imports in it do not register anything."""
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            function(*args)
        finally:
            self._thread.depth -= 1


def __getattr__(name: str) -> Any:
    if name != "FCLMImageProcessor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        from .image_processing_fclm import FCLMImageProcessor

        return FCLMImageProcessor
    from .image_processing_pil_fclm import FCLMImageProcessorPil

    return FCLMImageProcessorPil


__all__ = ["register", "register_when_imported"]

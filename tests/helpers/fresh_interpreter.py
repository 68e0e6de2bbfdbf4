"""Load a checkpoint from the local Hub in three ways in an interpreter without fclm_hf, and compare the alphas."""

from pathlib import Path

import numpy as np
import torch
from local_hub import LocalHub
from local_hub.client import run_client
from paths import PHOTOS
from PIL import Image
from tiny_model import tiny_processor
from transformers import pipeline


PHOTO = PHOTOS / "cat.jpg"
BOX = [60, 20, 420, 290]
LOAD = r"""
    import json, sys
    from pathlib import Path
    import numpy as np
    import torch
    from PIL import Image
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageMatting, AutoProcessor
    from transformers import pipeline

    torch.set_num_threads(1)  # sums of several run in another order
    repo, photo, out, *box = sys.argv[1:]
    box = [float(each) for each in box]
    try:
        import fclm_hf
        raise SystemExit("fclm_hf is there")
    except ModuleNotFoundError:
        pass
    for load in (
        AutoModelForImageMatting.from_pretrained,
        AutoProcessor.from_pretrained,
        lambda repo: pipeline("referring-matting", model=repo),
    ):
        try:
            load(repo)
            raise SystemExit("code was run without trust")
        except ValueError as error:
            assert "trust_remote_code=True" in str(error), error

    model = AutoModelForImageMatting.from_pretrained(repo, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
    matting = pipeline("referring-matting", model=repo, trust_remote_code=True)
    image = Image.open(photo)
    inputs = processor(images=image, input_boxes=[[box]], text=[["cat"]])
    alphas = processor.post_process_image_matting(model(**inputs), [(image.height, image.width)])[0]["alpha"]
    result = matting(photo, input_boxes=[box], text="cat")
    mask = Image.new("L", image.size)
    mask.paste(255, [int(each) for each in box])
    inputs = processor(images=image, input_masks=[[mask]])
    masked = processor.post_process_image_matting(model(**inputs), [(image.height, image.width)])[0]["alpha"]
    refined = matting(photo, input_masks=mask)
    np.savez(
        out,
        model=alphas[0].detach().numpy(),
        pipeline=result["predicted_alpha"].numpy(),
        cutout=result["cutout"],
        masked_model=masked[0].detach().numpy(),
        masked_pipeline=refined["predicted_alpha"].numpy(),
    )

    # what was loaded that way can be saved and loaded again, with all files
    matting.save_pretrained("again")
    model.save_pretrained("parts")
    processor.save_pretrained("parts")
    AutoImageProcessor.from_pretrained(repo, trust_remote_code=True).save_pretrained("image_processor")
    code = sorted(path.name for path in Path(sys.modules[type(model).__module__].__file__).parent.glob("*_fclm.py"))
    assert {"image_processing_pil_fclm.py", "image_processing_fclm.py", "pipeline_fclm.py"} <= set(code), code
    for folder in ("again", "parts", "image_processor"):
        assert sorted(path.name for path in Path(folder).glob("*_fclm.py")) == code, folder
    for folder in ("again", "parts"):
        config, settings = (json.loads(Path(folder, f"{n}.json").read_text()) for n in ("config", "processor_config"))
        backends = settings["image_processor"]["auto_map"]
        modules = [*config["auto_map"].values(), *settings["auto_map"].values()]
        modules += [*backends["AutoImageProcessor"].values(), config["custom_pipelines"]["referring-matting"]["impl"]]
        assert len(modules) == 7 and {module.split(".")[0] + ".py" for module in modules} <= set(code), modules
    again = pipeline("referring-matting", model="again", trust_remote_code=True)
    weights, same = matting.model.state_dict(), again.model.state_dict()
    assert weights.keys() == same.keys() and all((weights[name] == same[name]).all() for name in weights)
    image_processor = AutoImageProcessor.from_pretrained(repo, trust_remote_code=True)
    objects = [model, processor, matting, again, again.processor, image_processor]
    objects += [auto.from_pretrained(repo, trust_remote_code=True) for auto in (AutoConfig, AutoModel)]
    assert all(type(each).__module__.startswith("transformers_modules.") for each in objects), objects
    print("\n" + json.dumps([type(each).__name__ for each in objects]))
"""
CLASSES = [
    "FCLMForImageMatting",
    "FCLMProcessor",
    "ReferringMattingPipeline",
    "ReferringMattingPipeline",
    "FCLMProcessor",
    "{image_processor}",
    "FCLMConfig",
    "FCLMModel",
]


def check_loading(hub: LocalHub, folder: Path, source: Path, image_processor: str, **client: object) -> None:
    """Load tester/cats in a fresh interpreter, and compare the alphas with those of `source` in this one."""
    out = folder / "alphas.npz"
    classes = run_client(hub, folder / "fresh", LOAD, "tester/cats", PHOTO, out, *BOX, **client)
    assert classes == [name.format(image_processor=image_processor) for name in CLASSES]
    torch.set_num_threads(1)
    kwargs = {"processor": tiny_processor()} if image_processor.endswith("Pil") else {}
    matting = pipeline("referring-matting", model=str(source), **kwargs)
    with Image.open(PHOTO) as photo:
        mask = Image.new("L", photo.size)
    mask.paste(255, BOX)

    def predict(refine: bool | None, **prompts: object) -> np.ndarray:
        return matting(PHOTO, **prompts, refine=refine, cutout=False)["predicted_alpha"].numpy()

    with np.load(out) as found:
        for way, refine in (("model", False), ("pipeline", None)):  # pipelines may look twice
            expected = predict(refine, input_boxes=[BOX], text="cat")
            masked = predict(refine, input_masks=mask)
            assert np.abs(masked - expected).max() > 0.01
            np.testing.assert_allclose(found[way], expected, rtol=0, atol=1e-6)
            np.testing.assert_allclose(found[f"masked_{way}"], masked, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found["cutout"][..., 3], expected * 255, rtol=0, atol=0.501)

"""Images through a processor of transformers itself: a tiny random Llava with its `LlavaProcessor` and pictures."""

import copy

import numpy as np
import pytest
from transformers import LlavaProcessor

import outlines_core as oc
from processors import load_embedded
from processors.generation import ChatSampler, RandomSampling, Sampler
from tests.sampler_models import rows_of
from tests.tiny_llava import tiny_llava

Image = pytest.importorskip("PIL.Image", reason="pictures need pillow")
TEXTS = ["See <image> here", "<image>What is it, if you please?", "A <image> and b."]


@pytest.fixture(scope="module")
def parts():
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = copy.deepcopy(load_embedded()[1])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    model = tiny_llava(len(tokenizer), tokenizer.convert_tokens_to_ids("<image>"), image_size=16, n_patches=16)
    side = {"height": 16, "width": 16}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=side, crop_size=side),
        tokenizer=tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    return model, processor


def picture(seed: int, width: int = 24, height: int = 17) -> "Image.Image":
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PICTURES = [picture(0), picture(1, 40, 40), picture(2, 16, 30)]


def test_equals_transformers(parts):
    """Pictures of other sizes are made alike by the processor, which also expands each "<image>"."""
    model, processor = parts
    inputs = processor(text=TEXTS, images=PICTURES, padding=True, padding_side="left", return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist() == [16, 16, 16]
    expected = model.generate(**inputs, do_sample=False, max_new_tokens=8)[:, inputs["input_ids"].shape[1] :]
    sampler = Sampler(model, tokenizer=processor)
    output = sampler.sample(TEXTS, images=PICTURES, max_new_tokens=8, return_state=True)
    assert [row + [2] * (expected.shape[1] - len(row)) for row in rows_of(output)] == expected.tolist()
    for text, one, row in zip(TEXTS, PICTURES, rows_of(output), strict=True):
        assert rows_of(sampler.sample(text, images=[one], max_new_tokens=8, return_state=True)) == [row]
    other = sampler.sample(TEXTS, images=PICTURES[::-1], max_new_tokens=8, return_state=True)
    assert rows_of(other) != rows_of(output)


def test_guides_and_shards(parts):
    model, processor = parts
    sampler = Sampler(model, tokenizer=processor)
    guide = oc.compile_regex("[a-c]{4}", sampler.vocabulary)
    call = {"max_new_tokens": 8, "guide": guide, "sampling": RandomSampling(), "rng": 1}
    texts = sampler.sample(TEXTS, images=PICTURES, **call)
    assert all(len(text) == 4 and set(text) <= set("abc") for text in texts)
    assert sampler.sample(TEXTS, images=PICTURES, sharding=["cpu"] * 3, **call) == texts


def test_conversations(parts):
    """A later turn sees the pictures of those before it."""
    model, processor = parts
    chat = ChatSampler(model, tokenizer=processor, multi_turn=True)
    first = chat.chat("<image> what?", images=[PICTURES[0]], max_new_tokens=5)
    second = chat.chat("And <image>?", images=[PICTURES[1]], max_new_tokens=5)
    talk = [
        {"role": "user", "content": "<image> what?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And <image>?"},
    ]
    assert Sampler(model, tokenizer=processor).sample(talk, images=PICTURES[:2], max_new_tokens=5) == second

"""Images, with a tiny random Llava and a processor of the same protocol as those of transformers."""

import pytest
import torch

import outlines_core as oc
from processors import load_embedded
from processors.generation import ChatSampler, RandomSampling, Sampler
from tests.sampler_models import rows_of
from tests.tiny_llava import tiny_llava

IMAGE, N_PATCHES = 7, 4


class Processor:
    """Expands each "<image>" to as many image tokens as there are patches, and pads on the left."""

    def __init__(self, tokenizer):
        self.tokenizer, self.image_processor = tokenizer, object()
        self.seen = []

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize
        assert add_generation_prompt
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant: "

    def __call__(self, text, images, padding, padding_side, add_special_tokens, return_tensors):
        assert (padding, padding_side, return_tensors) == (True, "left", "pt")
        self.seen.append(add_special_tokens)
        rows = []
        for one in text:
            parts = [self.tokenizer.encode(part, add_special_tokens=False) for part in one.split("<image>")]
            row = parts[0]
            for part in parts[1:]:
                row = row + [IMAGE] * N_PATCHES + part
            rows.append(row)
        flat = [image for group in images for image in (group if isinstance(group, list) else [group])]
        width = max(map(len, rows))
        return {
            "input_ids": torch.tensor([[2] * (width - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
            "pixel_values": torch.stack(flat),
        }


@pytest.fixture(scope="module")
def parts():
    _, tokenizer = load_embedded()
    model = tiny_llava(3072, IMAGE, image_size=8, n_patches=N_PATCHES)
    return model, Processor(tokenizer)


PICTURES = [torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(3)]
TEXTS = ["See <image> here", "<image>: what is it, if you please?", "a <image> b"]


def test_equals_transformers(parts):
    model, processor = parts
    inputs = processor(TEXTS, PICTURES, True, "left", True, "pt")
    expected = model.generate(**inputs, do_sample=False, max_new_tokens=8)[:, inputs["input_ids"].shape[1] :]
    sampler = Sampler(model, tokenizer=processor)
    output = sampler.sample(TEXTS, images=PICTURES, max_new_tokens=8, return_state=True)
    ours = [row + [2] * (expected.shape[1] - len(row)) for row in rows_of(output)]
    assert ours == expected.tolist()
    assert processor.seen[-1]
    for text, picture, row in zip(TEXTS, PICTURES, rows_of(output), strict=True):
        for images in (picture, [picture]):
            assert rows_of(sampler.sample(text, images=images, max_new_tokens=8, return_state=True)) == [row]
    other = sampler.sample(TEXTS, images=PICTURES[::-1], max_new_tokens=8, return_state=True)
    assert rows_of(other) != rows_of(output)


def test_images_in_a_later_turn(parts):
    """Two turns with an image each are one call with both."""
    model, processor = parts
    sampler = Sampler(model, tokenizer=processor)
    first = sampler.sample(TEXTS, images=PICTURES, max_new_tokens=4, return_state=True)
    more = ["now <image>", " and <image> then this", "<image>"]
    second = sampler.sample(more, images=PICTURES[::-1], max_new_tokens=5, last_state=first.state, return_state=True)
    assert not processor.seen[-1]
    encode = processor.tokenizer.encode
    for k in range(3):
        context = first.state.tokens()[k]
        before, after = more[k].split("<image>")
        ids = [*context, *encode(before, add_special_tokens=False), *[IMAGE] * N_PATCHES]
        ids += encode(after, add_special_tokens=False)
        pixels = torch.stack([PICTURES[k], PICTURES[2 - k]])
        out = model.generate(torch.tensor([ids]), pixel_values=pixels, do_sample=False, max_new_tokens=5)[0, len(ids) :]
        row = rows_of(second)[k]
        assert out.tolist() == row


def test_guides_and_shards(parts):
    model, processor = parts
    sampler = Sampler(model, tokenizer=processor)
    guide = oc.compile_regex("[a-c]{4}", sampler.vocabulary)
    call = {"max_new_tokens": 8, "guide": guide, "sampling": RandomSampling(), "rng": 1}
    texts = sampler.sample(TEXTS, images=PICTURES, **call)
    assert all(len(text) == 4 and set(text) <= set("abc") for text in texts)
    assert sampler.sample(TEXTS, images=PICTURES, sharding=["cpu"] * 3, **call) == texts
    with pytest.raises(ValueError, match="2 lists of images for 3 prompts"):
        sampler.sample(TEXTS, images=PICTURES[:2], sharding=["cpu"] * 3, **call)
    with pytest.raises(TypeError, match="not token ids"):
        sampler.sample([[3]] * 3, images=PICTURES, **call)


def test_conversations_with_images(parts):
    """Every turn sees the images of all turns before it."""
    model, processor = parts
    chat, talk = ChatSampler(model, tokenizer=processor, multi_turn=True), []
    for k, said in enumerate(["<image> what?", "And so?", "<image> or <image>"]):
        talk.append({"role": "user", "content": said})
        shown = [[PICTURES[0]], [], PICTURES[1:]][k]
        seen = PICTURES[: (1, 1, 3)[k]]
        expected = Sampler(model, tokenizer=processor).sample(talk, images=seen, max_new_tokens=5)
        assert not processor.seen[-1]
        assert chat.chat(said, images=shown or None, max_new_tokens=5) == expected
        talk.append({"role": "assistant", "content": expected})

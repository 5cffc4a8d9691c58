"""A CLIP, a vision-language model with its processor, and image-text rows, small enough for every test."""

import random
from pathlib import Path

import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow
from PIL import ImageDraw
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

from tests.tiny import tiny_model, tiny_tokenizer


COLOURS = ["red", "green", "blue", "yellow", "white", "purple"]
SHAPES = ["ellipse", "rectangle"]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TOWER, "image_size": 16, "patch_size": 8, "projection_dim": 24}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}{{ '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def picture(colour: str, shape: str, size: int = 20) -> Pillow.Image:
    """A shape of a colour on black."""
    image = Pillow.new("RGB", (size, size))
    getattr(ImageDraw.Draw(image), shape)((3, 3, size - 5, size - 5), fill=colour)
    return image


def captions(n: int = 24, seed: int = 0) -> list[dict]:
    """Rows that ask what an image shows; the answers are of 1 to 12 words."""
    draw, rows = random.Random(seed), []
    for _ in range(n):
        colour, shape = draw.choice(COLOURS), draw.choice(SHAPES)
        words = " ".join(draw.choices(["bright", "small", "round", "plain", "quiet"], k=draw.randint(0, 10)))
        prompt = [{"role": "user", "content": "What is this?"}]
        answer = [{"role": "assistant", "content": f"A {words} {colour} {shape}.".replace("  ", " ")}]
        rows.append({"prompt": prompt, "completion": answer, "image": picture(colour, shape)})
    return rows


def image_rows(n: int = 24, seed: int = 0, layout: str = "prompt-completion") -> Dataset:
    """
    [`captions`] as chat prompt-completion rows with `image`, or as `messages` with `images`; in the layout `parts`,
    the messages say where the image goes.
    """
    turn = List({"role": Value("string"), "content": Value("string")})
    rows = captions(n, seed)
    if layout == "parts":
        for row in rows:
            prompt, answer = ([{"type": "text", "text": row[name][0]["content"]}] for name in ("prompt", "completion"))
            prompt.append({"type": "image", "text": None})
            turns = (("user", prompt), ("assistant", answer))
            row["messages"] = [{"role": role, "content": content} for role, content in turns]
        parts = List({"type": Value("string"), "text": Value("string")})
        turn = List({"role": Value("string"), "content": parts})
        rows = [{"messages": row["messages"], "images": [row["image"]]} for row in rows]
        return Dataset.from_list(rows, features=Features(messages=turn, images=List(Image())))
    if layout == "messages":
        rows = [{"messages": row["prompt"] + row["completion"], "images": [row["image"]]} for row in rows]
        return Dataset.from_list(rows, features=Features(messages=turn, images=List(Image())))
    return Dataset.from_list(rows, features=Features(prompt=turn, completion=turn, image=Image()))


def image_processor() -> CLIPImageProcessorPil:
    side = {"height": 16, "width": 16}
    return CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=side)


def _text_tower(window: int) -> tuple[PreTrainedTokenizerFast, dict]:
    """A tokenizer that ends each text with its end token, and the options of its text tower."""
    tokenizer = tiny_tokenizer(chat_template=False)
    tokenizer.model_max_length, end = window, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": window, "bos_token_id": None}
    return tokenizer, text | {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}


def save_clip(folder: Path, seed: int = 0) -> str:
    """Write a random CLIP and its processor into a folder."""
    tokenizer, text = _text_tower(40)
    config = CLIPConfig(text_config={**text, "projection_dim": 24}, vision_config=VISION, projection_dim=24)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(image_processor(), tokenizer).save_pretrained(folder)
    return str(folder)


def save_siglip(folder: Path, seed: int = 0) -> str:
    """Write a random SigLIP, which knows padded texts only, and its processor into a folder."""
    tokenizer, text = _text_tower(40)
    vision = {**TOWER, "image_size": 16, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        SiglipModel(SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=vision)).save_pretrained(
            folder
        )
    SiglipProcessor(SiglipImageProcessorPil(size={"height": 16, "width": 16}), tokenizer).save_pretrained(folder)
    return str(folder)


def tiny_idefics(seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A random Idefics3, of the make of SmolVLM, and its processor."""
    tokenizer = tiny_tokenizer(chat_template=False)
    special = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    side = {"longest_edge": 32}
    images = Idefics3ImageProcessorPil(size=side, max_image_size=side, do_image_splitting=False)
    processor = Idefics3Processor(images, tokenizer, image_seq_len=1, chat_template=CHAT_TEMPLATE)
    config = Idefics3Config(
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        text_config=tiny_model(tokenizer).config,
        scale_factor=4,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Idefics3ForConditionalGeneration(config).eval(), processor


def tiny_vlm(seed: int = 0) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A random Llava in float32 and its processor, with a chat template that takes images."""
    tokenizer = tiny_tokenizer(chat_template=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    processor = LlavaProcessor(
        image_processor(),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=tiny_model(tokenizer).config,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config).eval(), processor

"""hilora.torch: a pool inside a transformers model.

    import hilora, hilora.torch

    pool = hilora.Pool("pool.hlp")
    with hilora.torch.attach(model, pool) as attached:
        routes = pool.route_batch(embeddings)              # one row per prompt
        with attached.use(routes):
            model.generate(**tokenizer(prompts, return_tensors="pt", padding=True), num_beams=4)

Needs PyTorch; transformers only as far as the model does.
"""

from .attachment import Attachment, AttachError, attach

__all__ = ["AttachError", "Attachment", "attach"]

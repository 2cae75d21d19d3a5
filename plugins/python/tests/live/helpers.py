"""What the tests of hilora.torch have in common."""


def logits(model, inputs):
    return model(**inputs).logits


def explicit(pool, weights, **options):
    """A route of these adapters with all of their components, from float32 rows."""
    return pool.route(adapters=weights, **{"gamma": 1.0, "rows": "f32", **options})


def hooks(model):
    return [(name, len(module._forward_hooks), len(module._forward_pre_hooks)) for name, module in model.named_modules()]

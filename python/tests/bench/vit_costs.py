"""The products of timm's plain Vision Transformers, written out by hand: what the costs of their adapter must come to."""


def vit_costs(model) -> dict:
    patch, tokens, dim = model.patch_embed, model.patch_embed.num_patches + model.num_prefix_tokens, [[1, "embed"]]
    sizes = {"embed": model.embed_dim}
    products = [_linear("patch_embed.proj", patch.num_patches, [[patch.proj.weight[0].numel()]], dim)]
    for i, block in enumerate(model.blocks):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        sizes |= {mlp: block.mlp.fc1.out_features, attn: block.attn.num_heads, f"{attn}.v": block.attn.head_dim, f"{attn}.qk": block.attn.head_dim,
                  f"{attn}.branch": 1, f"{mlp}.branch": 1}
        qk, v, hidden = [attn, f"{attn}.qk"], [attn, f"{attn}.v"], [[1, mlp]]
        in_attn, in_mlp = {"times": [f"{attn}.branch"]}, {"times": [f"{mlp}.branch"]}
        products += [
            {"kind": "norm", "name": f"blocks.{i}.norm1", "rows": tokens, "outputs": dim, **in_attn},
            {**_linear(f"{attn}.qkv", tokens, dim, [[2, *qk], [1, *v]]), **in_attn},
            {"kind": "attention", "name": attn, "rows": tokens, "inputs": [[1, *qk]], "outputs": [[1, *v]], "heads": [[1, attn]], **in_attn},
            {**_linear(f"{attn}.proj", tokens, [[1, *v]], dim), **in_attn},
            {"kind": "norm", "name": f"blocks.{i}.norm2", "rows": tokens, "outputs": dim, **in_mlp},
            {**_linear(f"{mlp}.fc1", tokens, dim, hidden), **in_mlp},
            {"kind": "pointwise", "name": f"{mlp}.act", "rows": tokens, "outputs": hidden, **in_mlp},
            {**_linear(f"{mlp}.fc2", tokens, hidden, dim), **in_mlp},
        ]
    products += [{"kind": "norm", "name": "norm", "rows": tokens, "outputs": dim}, _linear("head", 1, dim, [[model.num_classes]]),
                 {"kind": "parameters", "name": "pos_embed", "outputs": [[model.pos_embed.shape[1], "embed"]]}]
    return {"sizes": sizes, "products": products}


def _linear(name, rows, inputs, outputs):
    return {"kind": "linear", "name": name, "rows": rows, "inputs": inputs, "outputs": outputs, "bias": True}

"""torch's side of a duel: diffusers' UNet and schedulers, and a DiT in plain torch; eager, or compiled."""

import math

import diffusers
import torch
import torch.nn.functional as F
from torch import nn

from bench.engines.serve import Case, serve

SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "XL": (1152, 28, 16)}  # width, depth, heads
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Block(nn.Module):
    """adaLN-Zero (Peebles & Xie 2023), the attention by torch's fused kernel."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.hidden, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, emb):
        n, length, width = x.shape
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(emb)[:, None].chunk(6, dim=-1)
        h = F.layer_norm(x, (width,), eps=1e-6) * (1 + scale) + shift
        q, k, v = self.qkv(h).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
        x = x + gate * self.out(h)
        h = F.layer_norm(x, (width,), eps=1e-6) * (1 + scale2) + shift2
        return x + gate2 * self.back(F.gelu(self.hidden(h), approximate="tanh"))


class DiT(nn.Module):
    """(x [B, C, H, W], t [B], label [B]) -> [B, C, H, W]."""

    def __init__(self, channels, classes, *, size, patch, side):
        super().__init__()
        width, depth, heads = SIZES[size]
        self.patch = patch
        self.stem = nn.Conv2d(channels, width, patch, stride=patch)
        self.register_buffer("positions", torch.randn(1, (side // patch) ** 2, width))
        self.register_buffer("frequencies", torch.exp(-math.log(10000) * torch.arange(128) / 128))
        self.level = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.modulation, self.head = nn.Linear(width, 2 * width), nn.Linear(width, patch * patch * channels)

    def forward(self, x, t, label):
        n, channels, height, width = x.shape
        p = self.patch
        angles = 1000 * t[:, None] * self.frequencies[None]
        emb = F.silu(self.level(torch.cat([angles.cos(), angles.sin()], dim=-1)) + self.label(label))
        h = self.stem(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            h = block(h, emb)
        shift, scale = self.modulation(emb)[:, None].chunk(2, dim=-1)
        h = self.head(F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        h = h.reshape(n, height // p, width // p, p, p, channels)
        return h.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


def dit(*, batch, size, patch, step, half=False, compiled=False) -> Case:
    torch.manual_seed(0)
    net = DiT(4, 1000, size=size, patch=patch, side=32)
    inputs = torch.randn(batch, 4, 32, 32), torch.rand(batch), torch.randint(0, 1000, (batch,))
    return _network(net, inputs, step=step, half=half, compiled=compiled)


def unet_model():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), attention_head_dim=64,
    )  # fmt: skip


class Sample(nn.Module):
    """diffusers' answer without its wrapping."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t):
        return self.net(x, t, return_dict=False)[0]


def unet(*, batch, step, half=False, compiled=False) -> Case:
    inputs = torch.randn(batch, 3, 32, 32), torch.randint(0, 1000, (batch,))
    return _network(Sample(unet_model()), inputs, step=step, half=half, compiled=compiled)


def _network(net, inputs, *, step, half, compiled) -> Case:
    """In float32, or with `half` in bfloat16 by autocast; eager, or compiled with channels last."""
    net, inputs = net.to(DEVICE), tuple(a.to(DEVICE) for a in inputs)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)
    target = torch.randn_like(inputs[0])
    call = torch.compile(net.to(memory_format=torch.channels_last)) if compiled else net
    cast = torch.autocast(DEVICE, torch.bfloat16, enabled=half)

    def forward():
        with torch.no_grad(), cast:
            call(*inputs)
        _wait()

    def train():
        optimizer.zero_grad(set_to_none=True)
        with cast:
            loss = F.mse_loss(call(*inputs).float(), target)
        loss.backward()
        optimizer.step()
        _wait()

    return Case(train if step else forward, {"parameters": sum(p.numel() for p in net.parameters())})


def _wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _scheduler(solver):
    if solver == "ddim":
        return diffusers.DDIMScheduler(prediction_type="epsilon", clip_sample=False)
    return diffusers.DPMSolverMultistepScheduler(solver_order=2, prediction_type="epsilon")


def sampler(*, solver, steps, batch, net) -> Case:
    """The whole loop; `net` "free" answers with half of what it is given."""
    scheduler, model = _scheduler(solver), unet_model() if net == "unet" else None
    x = torch.randn(batch, 3, 32, 32)

    def run():
        with torch.no_grad():
            scheduler.set_timesteps(steps)
            sample = x
            for t in scheduler.timesteps:
                raw = 0.5 * sample if model is None else model(sample, t).sample
                sample = scheduler.step(raw, t, sample).prev_sample
            return sample

    return Case(run, {})


def predictor_corrector(*, steps, batch) -> Case:
    """score_sde's loop as diffusers has it: one corrector and one predictor a level."""
    scheduler = diffusers.ScoreSdeVeScheduler(num_train_timesteps=steps)
    x = torch.randn(batch, 3, 32, 32)

    def run():
        with torch.no_grad():
            scheduler.set_timesteps(steps)
            scheduler.set_sigmas(steps)
            sample = x * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                sample = scheduler.step_correct(-0.5 * sample, sample).prev_sample
                sample = scheduler.step_pred(-0.5 * sample, t, sample).prev_sample
            return sample

    return Case(run, {})


if __name__ == "__main__":
    torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
    serve(
        {"unet": unet, "dit": dit, "sampler": sampler, "predictor_corrector": predictor_corrector},
        {"torch": torch.__version__, "diffusers": diffusers.__version__},
    )

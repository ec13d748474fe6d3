#!/usr/bin/env python3
"""Times one MoE layer with LoRA as PyTorch users run it, beside forward_bench on the same machine.

    peer_forward.py [--tokens 1,16,128,1024,8192] [--count 20]

Four forms, bf16, router left out, the routing given, LoRA on gate, up and down with an A each:
  grouped  sort by expert, torch._grouped_mm for base and LoRA, un-sort, weighted sum; as a CUDA graph and not
  presorted  the same with the rows' order worked out before, as forward_bench has it
  gather   torch.bmm over each pair's gathered weights (few tokens only), as a CUDA graph and not
  loop     the eager loop over chosen experts
Four routings in turn, times between two CUDA events, median of --count after 4 warm-ups, microseconds. The floor is
the larger of bytes over bandwidth and operations over the matrix rate: of an H200 (4.3 TB/s, 790 TFLOP/s), and of
what this machine reached just before. JSON on stdout; compare_forward.py sets it beside forward_bench's.
"""
import argparse
import datetime
import json
import statistics
import sys

import torch
import torch.nn.functional as F

SHAPES = {
    "gpt-oss-20b": dict(E=32, k=4, H=2880, I=2880, r=32, oss=True),
    "Qwen3-30B-A3B": dict(E=128, k=8, H=2048, I=768, r=16, oss=False),
}
SCALE = 2.0
H200 = dict(bytes_per_s=4.3e12, flop_per_s=790e12)


def log(*words):
    print(*words, file=sys.stderr, flush=True)


def timed(run, count, warmup=4):
    times = []
    for i in range(warmup + count):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run(i)
        end.record()
        end.synchronize()
        if i >= warmup:
            times.append(begin.elapsed_time(end) * 1e3)
    return dict(median=round(statistics.median(times), 1), min=round(min(times), 1), max=round(max(times), 1))


def ceilings():
    big = torch.randint(0, 255, (2 << 30,), dtype=torch.uint8, device="cuda")
    other = torch.empty_like(big)
    copy = timed(lambda i: other.copy_(big), 10)["median"]
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = timed(lambda i: torch.matmul(a, b), 10)["median"]
    return dict(bytes_per_s=2 * big.numel() / copy * 1e6, flop_per_s=2 * 8192**3 / product * 1e6)


def random(*shape, sd=1.0):
    return (torch.randn(*shape, device="cuda") * sd).to(torch.bfloat16)


class Layer:
    def __init__(self, E, k, H, I, r, oss):
        self.E, self.k, self.H, self.I, self.r, self.oss = E, k, H, I, r, oss
        self.w13 = torch.stack([random(2 * I, H, sd=H**-0.5) for _ in range(E)])
        self.w2 = torch.stack([random(H, I, sd=I**-0.5) for _ in range(E)])
        self.b13, self.b2 = random(E, 2 * I, sd=0.1), random(E, H, sd=0.1)
        self.a13 = random(E, 2 * r, H, sd=H**-0.5)  # gate's rows, then up's
        self.gate_b, self.up_b = random(E, I, r, sd=r**-0.5), random(E, I, r, sd=r**-0.5)
        self.a2, self.down_b = random(E, r, I, sd=I**-0.5), random(E, H, r, sd=r**-0.5)
        self.experts = torch.arange(E, device="cuda")

    def activation(self, gate, up):
        if not self.oss:
            return F.silu(gate) * up
        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
        return (up + 1) * (gate * torch.sigmoid(gate * 1.702))

    def loop(self, x, chosen, weight):
        I, r, out = self.I, self.r, torch.zeros_like(x)
        for e in torch.unique(chosen).tolist():
            token, slot = torch.where(chosen == e)
            h = x[token]
            both = F.linear(h, self.w13[e], self.b13[e] if self.oss else None)
            z = F.linear(h, self.a13[e])
            gate = both[:, :I] + SCALE * F.linear(z[:, :r], self.gate_b[e])
            up = both[:, I:] + SCALE * F.linear(z[:, r:], self.up_b[e])
            a = self.activation(gate, up)
            y = F.linear(a, self.w2[e], self.b2[e] if self.oss else None)
            y = y + SCALE * F.linear(F.linear(a, self.a2[e]), self.down_b[e])
            out.index_add_(0, token, y * weight[token, slot, None])
        return out

    def row_order(self, chosen):
        order, pair = torch.sort(chosen.reshape(-1), stable=True)
        ends = torch.searchsorted(order, self.experts, right=True).to(torch.int32)
        back = torch.empty_like(pair)
        back[pair] = torch.arange(pair.numel(), device="cuda")
        return order, pair, ends, back

    def grouped(self, x, chosen, weight, rows=None):
        I, r, T = self.I, self.r, x.shape[0]
        order, pair, ends, back = rows or self.row_order(chosen)
        by_expert = lambda rows, w: torch._grouped_mm(rows, w.transpose(1, 2), offs=ends)
        h = x[pair // self.k]
        both = by_expert(h, self.w13)
        if self.oss:
            both = both + self.b13[order]
        z = by_expert(h, self.a13)
        gate = both[:, :I] + SCALE * by_expert(z[:, :r].contiguous(), self.gate_b)
        up = both[:, I:] + SCALE * by_expert(z[:, r:].contiguous(), self.up_b)
        a = self.activation(gate, up)
        y = by_expert(a, self.w2)
        if self.oss:
            y = y + self.b2[order]
        y = y + SCALE * by_expert(by_expert(a, self.a2), self.down_b)
        return (y[back].view(T, self.k, self.H) * weight[..., None]).sum(1)

    def gather(self, x, chosen, weight):
        I, r, T, e = self.I, self.r, x.shape[0], chosen.reshape(-1)
        h = x.repeat_interleave(self.k, 0)[:, :, None]
        both = torch.bmm(self.w13[e], h)[..., 0]
        if self.oss:
            both = both + self.b13[e]
        z = torch.bmm(self.a13[e], h)
        gate = both[:, :I] + SCALE * torch.bmm(self.gate_b[e], z[:, :r])[..., 0]
        up = both[:, I:] + SCALE * torch.bmm(self.up_b[e], z[:, r:])[..., 0]
        a = self.activation(gate, up)[:, :, None]
        y = torch.bmm(self.w2[e], a)[..., 0]
        if self.oss:
            y = y + self.b2[e]
        y = y + SCALE * torch.bmm(self.down_b[e], torch.bmm(self.a2[e], a))[..., 0]
        return (y.view(T, self.k, self.H) * weight[..., None]).sum(1)

    def check(self):
        given = self.inputs(64)
        loop, grouped = self.loop(*given).double(), self.grouped(*given).double()
        return float((loop - grouped).norm() / loop.norm())

    def inputs(self, tokens):
        weight, chosen = torch.randn(tokens, self.E, device="cuda").topk(self.k, -1)
        return random(tokens, self.H), chosen, weight.softmax(-1).to(torch.bfloat16)

    def floor(self, tokens, active, machine):
        size = 3 * self.H * self.I + self.r * 3 * (self.H + self.I)
        flop, moved = 2 * tokens * self.k * size, 2 * active * size + 4 * tokens * self.H
        return round(max(flop / machine["flop_per_s"], moved / machine["bytes_per_s"]) * 1e6, 1)


def recorded(form, sets):
    graphs = []
    for given in sets:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            form(*given)
        torch.cuda.current_stream().wait_stream(side)
        graphs.append(torch.cuda.CUDAGraph())
        with torch.cuda.graph(graphs[-1]):
            form(*given)
    return graphs


def measure(layer, tokens, count):
    sets = [layer.inputs(tokens) for _ in range(4)]
    active = sum(int(torch.unique(s[1]).numel()) for s in sets) / len(sets)
    times = {}
    presorted = [(*s, layer.row_order(s[1])) for s in sets]
    forms = [("grouped", layer.grouped, sets), ("presorted", layer.grouped, presorted)]
    if tokens <= 16:
        forms.append(("gather", layer.gather, sets))
    for name, form, given in forms:
        try:
            times[name] = timed(lambda i: form(*given[i % 4]), count)
            graphs = recorded(form, given)
            times[name + " graph"] = timed(lambda i: graphs[i % 4].replay(), count)
            del graphs
        except Exception as error:  # a form that this torch cannot do is a result too
            times[name + " failed"] = repr(error)[:200]
    times["loop"] = timed(lambda i: layer.loop(*sets[i % 4]), min(count, 6), 2)
    torch.cuda.empty_cache()
    return active, times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", default="1,16,128,1024,8192")
    parser.add_argument("--count", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(11)
    here = ceilings()
    results = []
    for name, shape in SHAPES.items():
        layer, rows = Layer(**shape), []
        for tokens in map(int, options.tokens.split(",")):
            active, times = measure(layer, tokens, options.count)
            rows.append(dict(tokens=tokens, experts_hit=active, microseconds=times,
                             floor_h200_us=layer.floor(tokens, active, H200),
                             floor_here_us=layer.floor(tokens, active, here)))
            log(name, json.dumps(rows[-1]))
        results.append(dict(shape=name, **{k: int(v) for k, v in shape.items()}, loop_and_grouped_differ_by=layer.check(),
                            rows=rows))
        del layer
        torch.cuda.empty_cache()
    record = dict(schema="moelora.peer-forward/1", command=" ".join(sys.argv), device=torch.cuda.get_device_name(),
                  date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), torch=torch.__version__)
    print(json.dumps(dict(record, measured_here=here, results=results), indent=1))


if __name__ == "__main__":
    main()

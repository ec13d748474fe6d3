// The shards of OpenPipe/ART's training, joined (lib/adapter/foreign/art_shards.h). Their names are
// PEFT's, and so are most factors; gate and up of a routed expert may be one gate_up_proj, whose
// rows are [gate; up] whatever the family. Where ART changes more when it writes for vLLM, it is
// not read.

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

constexpr std::string_view kExport =
    "Let ART export it for vLLM (art_lora_format: vllm) and give that folder.";

// Handlers of ART that do more than join and split (megatron/model_support/handlers).
constexpr std::array<std::string_view, 8> kChanged = {"gemma4",     "gemma4_unified", "deepseek_v4",
                                                      "qwen3_5",    "qwen3_5_moe",    "qwen3_next",
                                                      "nemotron_h", "glm_moe_dsa"};

// "...experts.7.gate_up_proj" as its parts.
bool put_gate_up(const std::string& name, std::string_view module, Side side, const Tensor& tensor,
                 Translation& out) {
  const auto path = parse_expert_path(module);
  if (!path || !path->expert || path->projection != Projection::gate_up) return false;
  if (tensor.rank() != 2 || (side == Side::B && tensor.dim(0) % 2 != 0))
    throw Error(
        name,
        fmt::format("is {}, expected rows of gate and as many of up", to_string(tensor.shape())),
        std::string(kExport));
  const std::string gate = sibling(module, "gate_proj"), up = sibling(module, "up_proj");
  const int64_t half = tensor.dim(0) / 2;
  put(out, name, lora_name(gate, side), side == Side::A ? tensor : tensor.slice(0, 0, half));
  put(out, name, lora_name(up, side), side == Side::A ? tensor : tensor.slice(0, half, half));
  return true;
}

void read(const ForeignAdapter& in, Translation& out) {
  for (const auto& [name, tensor] : in.tensors) {
    if (in.spec == nullptr)
      throw needs_base(name,
                       "is of ART's own shards, whose factors are not PEFT's in some "
                       "families");
    if (std::find(kChanged.begin(), kChanged.end(), in.spec->family) != kChanged.end())
      throw Error(name,
                  fmt::format("is of ART's own shards, whose factors of {} are not PEFT's",
                              in.spec->family),
                  std::string(kExport));
    const TensorName parsed = parse_tensor_name(name);
    const bool is_a = parsed.part == TensorPart::lora_a;
    const Side side = is_a ? Side::A : Side::B;
    const bool factor = is_a || parsed.part == TensorPart::lora_b;
    if (!factor || !put_gate_up(name, parsed.module, side, tensor, out))
      put(out, name, factor ? lora_name(parsed.module, side) : name, tensor);
  }
}

}  // namespace

const Dialect dialects::art = {
    .id = "art",
    .whose = "OpenPipe/ART",
    .names = "adapter_model-RR-of-WW.safetensors with adapter_manifest-RR-of-WW.json",
    .shapes = "PEFT's in parts; gate_up_proj of an expert [gate; up]",
    .sources = "OpenPipe/ART (megatron/lora.py, train.py, merge.py)",
    .advice = "",
    .set = ShardSet::art,
    .read = read,
};

}  // namespace moelora

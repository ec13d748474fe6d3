#include "lib/engine/buffer_forms.h"

#include <array>

namespace moelora {
namespace {

constexpr std::array<BufferForm, 2> kForms = {{
    {"sglang-pool", "sglang",
     "layers.{layer}.{qkv_proj\\|o_proj\\|gate_up_proj\\|gate_up_proj_moe\\|...}.{A\\|B}, "
     "{embed_tokens\\|lm_head}.{A\\|B}",
     "dense A [c·R, in], B [out, R]; experts A [E, c·R, in], B [E, out, R], scaled, with E 1 for a "
     "shared outer factor; c factors stacked (q, k, v: 3), R --max-lora-rank"},
    {"vllm-stacked", "vllm", "{module}.{lora_a_stacked\\|lora_b_stacked\\|...}.{i}",
     "dense A [R, in], B [out, R], of embed_tokens A [V, R]; experts A [E, R, in], B [E, out, R], "
     "with E 1 for a shared outer factor; B scaled; R --max-lora-rank"},
}};

}  // namespace

std::span<const BufferForm> buffer_forms() { return kForms; }

const BufferForm* find_buffer_form(std::string_view id) {
  for (const BufferForm& form : kForms)
    if (form.id == id) return &form;
  return nullptr;
}

}  // namespace moelora

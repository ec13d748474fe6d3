#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/engine/vllm/lora_model.h"

namespace moelora::vllm {

// One slot of a buffer on one rank, named as the server's attribute:
// "model.layers.0.mlp.experts.w13_lora_a_stacked.0" [E, R, H]; of other modules [R, in], [out, R].
struct Buffer {
  std::string name;
  Shape shape;
};

// Where a copied tensor's shape is not the base's; `source` is the tensor.
struct MisfitOf {
  uint32_t source;
  Misfit misfit;
};

// What set_lora() of one module writes. Nothing of it counts when the server raises on the way.
class Slot {
 public:
  // The factor at hand: what a message is about when the server raises next.
  void handle(const View& factor);

  // The base's extent of a factor's dim; -1 unknown. What differs is noted, not refused.
  void expect(const View& factor, int64_t dim, int64_t extent);
  void collapsed(const View& factor);  // only its first expert is kept

  // Copies the parts, one below the other along `clipped`, into ATTRIBUTE[slot]: dims from
  // `clipped` on may be smaller than the buffer's. Raises as torch does.
  void put(const std::string& attribute, const Shape& buffer, const std::vector<View>& parts,
           size_t clipped);

  struct Write {
    Buffer buffer;  // named without its module
    Shape start, count;
    View view;
  };
  std::vector<Write> writes;
  std::vector<MisfitOf> misfits;

  struct Handled {
    std::vector<uint32_t> tensors;
    Shape shape;
    std::string attribute;  // that it is copied into; "" while it is being cut
    Shape buffer;
    bool only_rank = false;  // it would fit but for its rank
  } at;
};

// What set_lora() of a module has to work with.
struct CopyContext {
  const Server& server;
  int64_t rank;
  const LoraModel& model;
  Slot& slot;
};
void copy_dense(const CopyContext& context, const Module& module, const Lora& lora);
void copy_experts(const CopyContext& context, const Lora& lora);          // FusedMoEWithLoRA
void copy_stacked_experts(const CopyContext& context, const Lora& lora);  // FusedMoE3DWithLoRA

}  // namespace moelora::vllm

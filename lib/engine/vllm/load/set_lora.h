#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/engine/vllm/load/lora_model.h"
#include "lib/engine/vllm/load/view.h"
#include "lib/engine/vllm/server/module_buffers.h"

namespace moelora::vllm {

// The parts, one below the other along `axis`, are elements [0, count) of the buffer; a dim of
// extent 1 where `count` is more is repeated. What no placement covers is zero. A view's values are
// those of its sources, rounded to the server's type, then times its scale and rounded again.
struct Placement {
  uint32_t buffer;
  size_t axis;
  std::vector<View> parts;
  Shape count;
};

// What set_lora() of one module writes. Nothing of it counts when the server raises on the way.
class Slot {
 public:
  explicit Slot(std::vector<Buffer> module) : buffers(std::move(module)) {}

  // The factor at hand: what a message is about when the server raises next.
  void handle(const View& factor);

  // The base's extent of a factor's dim; -1 unknown. What differs is noted, not refused.
  void expect(const View& factor, int64_t dim, int64_t extent);
  void collapsed(const View& factor);  // only its first expert is kept

  // Copies the parts, one below the other along `clipped`, into ATTRIBUTE[slot]: dims from
  // `clipped` on may be smaller than the buffer's. Raises as torch does. REQUIRES that the module
  // has such a buffer.
  void put(std::string_view attribute, std::vector<View> parts, size_t clipped);

  std::vector<Buffer> buffers;                       // of the module
  std::vector<Placement> writes;                     // into `buffers`
  std::vector<std::pair<uint32_t, Misfit>> misfits;  // of tensors

  struct Handled {
    std::vector<uint32_t> tensors;
    Shape shape;
    std::string name;  // of the buffer that it is copied into; "" while it is being cut
    Shape buffer;
    bool only_rank = false;  // it would fit but for its rank
  } at;

 private:
  void note(const View& factor, Misfit misfit);
};

// set_lora() of a module: cuts what `lora` holds for the rank and puts it into `slot`.
void copy_dense(const Loading& load, const Module& module, const Lora& lora, Slot& slot);
void copy_experts(const Loading& load, const Lora& lora, Slot& slot);          // FusedMoEWithLoRA
void copy_stacked_experts(const Loading& load, const Lora& lora, Slot& slot);  // FusedMoE3DWithLoRA

}  // namespace moelora::vllm

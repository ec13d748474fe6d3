#pragma once

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

// Element [i, ..] of `view` is element [start + i, ..] of the buffer, `count` of them; a dim of
// extent 1 where `count` is more is repeated. What no placement covers is zero. With the values of
// the view's sources (rounded to bf16, then times its scale, rounded once) this is the buffer.
struct Placement {
  uint32_t buffer;
  Shape start, count;
  View view;
};

// Every module's set_lora(): what is cut for this rank and written where (stage copy). The buffers
// of a module without an entry are zero. A module that is refused leaves no placement.
class CopyStep {
 public:
  CopyStep(const Server& server, const Adapter& adapter, int64_t rank, LoraModel& model,
           std::vector<TensorState>& states, std::vector<Fault>& faults)
      : server_(server),
        settings_(server.settings),
        adapter_(adapter),
        rank_(rank),
        model_(model),
        states_(states),
        faults_(faults) {}

  void run();

  std::vector<Buffer> buffers;
  std::vector<Placement> placements;
  std::vector<std::string> set_modules;

 private:
  void copy(const Module& module, const Lora& lora);
  void copy_single(const Module& module, const Lora& lora);
  void copy_embedding(const Lora& lora);
  void copy_lists(const Module& module, std::vector<std::optional<View>> a,
                  std::vector<std::optional<View>> b);
  void copy_variable(const Module& module, const Lora& lora);
  void expand_groups(const Module& module, std::vector<std::optional<View>>& a,
                     std::vector<std::optional<View>>& b) const;
  void copy_experts(const Lora& lora);
  void copy_stacked(const Lora& lora);

  View w13_a(const View& view) const;
  View w2_a(const View& view) const;
  View w2_b(const View& view) const;
  View rows(const View& view, int64_t count) const;
  std::vector<View> stacked_w13_b(const View& view) const;
  View matched(const View& view, int64_t experts);

  // Copies the parts, one below the other, into the buffer; dims from `clipped` on may be smaller.
  void put(const std::string& attribute, const Shape& buffer, const std::vector<View>& parts,
           size_t clipped);
  void put_dense(const std::string& attribute, const Shape& buffer, const View& view);
  void put_experts(const std::string& attribute, const Shape& buffer, std::vector<View> parts);
  void expect(const View& view, int64_t dim, int64_t extent);
  void handle(const View& view) { at_ = {view.sources, view.shape, "", {}}; }
  std::string what_went_wrong(const Module& module, const Lora& lora, std::string_view cause) const;
  void accept(const Module& module, const Lora& lora);
  void refuse(const Module& module, const Wanted& wanted, const Lora& lora, const Raised& raised);
  std::vector<uint32_t> sources_of(const Wanted& wanted, const Lora& lora);
  std::string_view cause_of(const Module& module, const Lora& lora, const Raised& raised) const;

  // Rows of lora_A that a rank holds where that is cut along the rank.
  int64_t rank_rows(bool cut) const {
    return cut && settings_.fully_sharded ? settings_.max_rank / settings_.tp : settings_.max_rank;
  }

  const Server& server_;
  const Settings& settings_;
  const Adapter& adapter_;
  int64_t rank_;
  LoraModel& model_;
  std::vector<TensorState>& states_;
  std::vector<Fault>& faults_;

  // Of the module at hand.
  struct Write {
    Buffer buffer;
    Shape start, count;
    View view;
  };
  std::vector<Write> writes_;
  std::vector<std::pair<uint32_t, Misfit>> misfits_;
  struct Handled {  // the factor at hand, for the message when the server raises
    std::vector<uint32_t> tensors;
    Shape shape;
    std::string attribute;  // that it is copied into; "" while it is being cut
    Shape buffer;
  } at_;
  bool too_much_rank_ = false;  // the factor fits but for its rank
};

}  // namespace moelora::vllm

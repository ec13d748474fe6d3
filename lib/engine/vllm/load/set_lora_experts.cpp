// set_lora() of FusedMoEWithLoRA and FusedMoE3DWithLoRA.

#include <fmt/core.h>

#include <array>

#include "lib/engine/vllm/load/set_lora.h"

namespace moelora::vllm {
namespace {

const View& tensor_of(const std::optional<View>& view) {
  if (!view) throw none_has_no("shape");
  return *view;
}

class ExpertCopy {
 public:
  ExpertCopy(const Loading& load, Slot& slot)
      : server_(load.server),
        settings_(load.server.settings),
        rank_(load.rank),
        slot_(slot),
        local_(server_.local_experts()),
        in_(server_.spec.expert_in),
        own_(server_.intermediate()),
        cut_(settings_.has("0.33") ? server_.partition() : own_),
        part_(settings_.fully_sharded ? settings_.moe_tp() : 1) {}

  // w1, w2, w3 of every expert.
  void numbered(const Lora& lora) {
    if (!lora.packed) throw assertion_error();
    const int64_t shared = settings_.shared_outer ? 1 : local_;
    std::array<View, 3> a, b;
    for (const size_t w : {0UL, 2UL, 1UL})
      a[w] = matched(tensor_of(lora.as[w]), w == 1 ? local_ : shared);
    for (const size_t w : {0UL, 2UL, 1UL})
      b[w] = matched(tensor_of(lora.bs[w]), w == 1 ? shared : local_);
    expect(a[0], in_, b[0], server_.spec.intermediate);
    if (server_.spec.gated) expect(a[2], in_, b[2], server_.spec.intermediate);
    expect(a[1], server_.spec.intermediate, b[1], in_);
    const View a1 = w13_a(a[0]), b1 = rows(b[0], cut_), a2 = w2_a(a[1]), b2 = w2_b(b[1]);
    put("w13_lora_a_stacked.0", {a1});
    put("w13_lora_b_stacked.0", {b1});
    if (server_.spec.gated) {
      const View a3 = w13_a(a[2]), b3 = rows(b[2], cut_);
      put("w13_lora_a_stacked.1", {a3});
      put("w13_lora_b_stacked.1", {b3});
    }
    put("w2_lora_a_stacked.0", {a2});
    put("w2_lora_b_stacked.0", {b2});
  }

  // gate_up and down of all experts.
  void stacked(const Lora& lora) {
    if (!lora.packed || lora.as.size() != 2) throw assertion_error();
    const View &a13 = *lora.as[0], &b13 = *lora.bs[0];
    expect(a13, in_, b13, 2 * server_.spec.intermediate);
    expect(*lora.as[1], server_.spec.intermediate, *lora.bs[1], in_);
    const View own_a13 = w13_a(a13);
    const std::vector<View> own_b13 = stacked_w13_b(b13);
    const View a2 = w2_a(*lora.as[1]), b2 = w2_b(*lora.bs[1]);
    put("w13_lora_a_stacked.0", {own_a13});
    put("w2_lora_a_stacked.0", {a2});
    put("w13_lora_b_stacked.0", own_b13);
    put("w2_lora_b_stacked.0", {b2});
  }

 private:
  bool is_whole() const { return settings_.moe_tp() == 1; }

  void expect(const View& a, int64_t in, const View& b, int64_t out) {
    slot_.expect(a, 2, in);
    slot_.expect(b, 1, out);
  }

  void put(std::string_view attribute, std::vector<View> parts) {
    slot_.put(attribute, std::move(parts), 1);
  }

  // _match_expert_dim: a factor that the buffer holds once keeps its first expert.
  View matched(const View& view, int64_t experts) {
    slot_.handle(view);
    const int64_t found = view.size(0);
    if (found == experts) return view;
    if (experts != 1)
      throw Raised("AssertionError",
                   fmt::format("expert-dim mismatch: source {} vs buffer {}", found, experts));
    slot_.collapsed(view);
    return view.slice(0, 0, 1);
  }

  // (E, n, ..) -> this rank's `count` of the n.
  View rows(const View& view, int64_t count) {
    slot_.handle(view);
    if (is_whole()) return view;
    if (view.rank() < 3) view.slice(2, 0, 0);  // [:, first:end, :] raises
    return view.slice(1, rank_ * count, (rank_ + 1) * count);
  }

  // (E, r, H), along the rank where fully sharded.
  View w13_a(const View& view) {
    slot_.handle(view);
    if (is_whole() || !settings_.fully_sharded) return view;
    if (view.size(1) % settings_.tp != 0) throw assertion_error();
    return rows(view, settings_.max_rank / part_);
  }

  // (E, r, I), along I.
  View w2_a(const View& view) {
    slot_.handle(view);
    return is_whole() ? view : view.slice(2, rank_ * cut_, (rank_ + 1) * cut_);
  }

  // (E, H, r), along H where fully sharded.
  View w2_b(const View& view) { return settings_.fully_sharded ? rows(view, in_ / part_) : view; }

  // This rank's rows of gate and of up, put together again: interleaved for gpt-oss, else halves.
  std::vector<View> stacked_w13_b(const View& view) {
    slot_.handle(view);
    if (is_whole() && (server_.model.interleaved || cut_ == own_)) return {view};
    if (view.rank() < 3) view.slice(2, 0, 0);  // [:, first:end, :] raises
    const int64_t first = is_whole() ? 0 : rank_ * cut_, end = first + cut_, all = view.dim(1);
    if (server_.model.interleaved) return {interleaved(view, first, end)};
    const View gate = view.slice(1, 0, all / 2).slice(1, first, end);
    const View up = view.slice(1, all / 2, all).slice(1, first, end);
    if (cut_ == own_) return {gate, up};
    return {gate, View::zeros({view.dim(0), own_ - gate.dim(1), view.dim(2)}), up};
  }

  static View interleaved(const View& view, int64_t first, int64_t end) {
    check_stack(view.slice(1, 0, view.dim(1), 2).slice(1, first, end).shape,
                view.slice(1, 1, view.dim(1), 2).slice(1, first, end).shape, 1);
    return view.slice(1, 2 * first, 2 * end);
  }

  const Server& server_;
  const Settings& settings_;
  int64_t rank_;
  Slot& slot_;
  int64_t local_, in_, own_;  // experts, H and I of this rank's buffers
  int64_t cut_;               // units of the base on a rank, in which factors are cut
  int64_t part_;              // into how many the rank (of w13 A) and H (of w2 B) are cut
};

}  // namespace

void copy_experts(const Loading& load, const Lora& lora, Slot& slot) {
  ExpertCopy(load, slot).numbered(lora);
}

void copy_stacked_experts(const Loading& load, const Lora& lora, Slot& slot) {
  ExpertCopy(load, slot).stacked(lora);
}

}  // namespace moelora::vllm

// set_lora() of FusedMoEWithLoRA and FusedMoE3DWithLoRA.

#include <fmt/format.h>

#include "lib/engine/vllm/copy.h"

namespace moelora::vllm {
namespace {

const View& tensor_of(const std::optional<View>& view) {
  if (!view) throw none_has_no("shape");
  return *view;
}

}  // namespace

// _match_expert_dim: a factor that the buffer holds once keeps its first expert.
View CopyStep::matched(const View& view, int64_t experts) {
  handle(view);
  const int64_t found = view.size(0);
  if (found == experts) return view;
  if (experts != 1)
    throw Raised("AssertionError",
                 fmt::format("expert-dim mismatch: source {} vs buffer {}", found, experts));
  Misfit collapsed;
  collapsed.collapsed = true;
  for (uint32_t source : view.sources) misfits_.emplace_back(source, collapsed);
  return view.slice(0, 0, 1);
}

// (E, r, H), along the rank where fully sharded.
View CopyStep::w13_a(const View& view) const {
  if (settings_.moe_tp() == 1 || !settings_.fully_sharded) return view;
  if (view.size(1) % settings_.tp != 0) throw assertion_error();
  return rows(view, settings_.max_rank / settings_.tp);
}

// (E, n, ..) -> this rank's `count` of the n.
View CopyStep::rows(const View& view, int64_t count) const {
  if (settings_.moe_tp() == 1) return view;
  if (view.rank() < 3) view.slice(2, 0, 0);  // [:, first:end, :]
  return view.slice(1, rank_ * count, (rank_ + 1) * count);
}

// (E, r, I), along I.
View CopyStep::w2_a(const View& view) const {
  if (settings_.moe_tp() == 1) return view;
  const int64_t count = server_.intermediate();
  return view.slice(2, rank_ * count, (rank_ + 1) * count);
}

// (E, H, r), along H where fully sharded.
View CopyStep::w2_b(const View& view) const {
  return settings_.fully_sharded ? rows(view, server_.spec.expert_in / settings_.tp) : view;
}

void CopyStep::copy_experts(const Lora& lora) {
  if (!lora.packed) throw assertion_error();
  const ModelSpec& spec = server_.spec;
  const int64_t local = server_.local_experts(), shared = settings_.shared_outer ? 1 : local;
  const int64_t max_rank = settings_.max_rank, in = spec.expert_in, own = server_.intermediate();
  const bool fully = settings_.fully_sharded && settings_.moe_tp() > 1;
  const size_t slices = spec.gated ? 2 : 1;  // w1 and w3
  const size_t order[] = {0, 2};
  View a[3], b[3];
  for (size_t w : {0, 2, 1}) a[w] = matched(tensor_of(lora.as[w]), w == 1 ? local : shared);
  for (size_t w : {0, 2, 1}) b[w] = matched(tensor_of(lora.bs[w]), w == 1 ? shared : local);
  for (size_t s = 0; s < slices; ++s) {
    expect(a[order[s]], 2, in);
    expect(b[order[s]], 1, spec.intermediate);
  }
  expect(a[1], 2, spec.intermediate);
  expect(b[1], 1, in);
  const auto cut = [&](auto&& slice, const View& view) {
    handle(view);
    return slice(view);
  };
  const auto cut_w13 = [&](size_t w) {
    a[w] = cut([&](const View& v) { return w13_a(v); }, a[w]);
    b[w] = cut([&](const View& v) { return rows(v, own); }, b[w]);
  };
  const auto put_w13 = [&](size_t s) {
    const size_t w = order[s];
    put_experts(fmt::format("w13_lora_a_stacked.{}", s), {shared, rank_rows(fully), in}, {a[w]});
    put_experts(fmt::format("w13_lora_b_stacked.{}", s), {local, own, max_rank}, {b[w]});
  };
  cut_w13(0);
  a[1] = cut([&](const View& v) { return w2_a(v); }, a[1]);
  b[1] = cut([&](const View& v) { return w2_b(v); }, b[1]);
  put_w13(0);
  if (slices == 2) {
    cut_w13(2);
    put_w13(1);
  }
  put_experts("w2_lora_a_stacked.0", {local, max_rank, own}, {a[1]});
  put_experts("w2_lora_b_stacked.0", {shared, fully ? in / settings_.tp : in, max_rank}, {b[1]});
}

// This rank's rows of gate and of up, put together again: interleaved for gpt-oss, else halves.
std::vector<View> CopyStep::stacked_w13_b(const View& view) const {
  if (settings_.moe_tp() == 1) return {view};
  const int64_t count = server_.intermediate(), first = rank_ * count, end = first + count;
  if (view.rank() < 3) view.slice(2, 0, 0);
  if (!server_.is_gpt_oss()) {
    const int64_t half = view.dim(1) / 2;
    return {view.slice(1, 0, half).slice(1, first, end),
            view.slice(1, half, view.dim(1)).slice(1, first, end)};
  }
  const View gate = view.slice(1, 0, view.dim(1), 2).slice(1, first, end);
  const View up = view.slice(1, 1, view.dim(1), 2).slice(1, first, end);
  if (gate.shape != up.shape)
    throw Raised("RuntimeError",
                 fmt::format("stack expects each tensor to be equal size, but got {} at entry 0 "
                             "and {} at entry 1",
                             to_string(gate.shape), to_string(up.shape)));
  return {view.slice(1, 2 * first, 2 * end)};
}

void CopyStep::copy_stacked(const Lora& lora) {
  if (!lora.packed || lora.as.size() != 2) throw assertion_error();
  const ModelSpec& spec = server_.spec;
  const View &a13 = *lora.as[0], &a2 = *lora.as[1], &b13 = *lora.bs[0], &b2 = *lora.bs[1];
  const int64_t local = server_.local_experts(), in = spec.expert_in, own = server_.intermediate();
  const bool fully = settings_.fully_sharded && settings_.moe_tp() > 1;
  expect(a13, 2, in);
  expect(a2, 2, spec.intermediate);
  expect(b13, 1, 2 * spec.intermediate);
  expect(b2, 1, in);
  const View cut_a13 = w13_a(a13);
  const std::vector<View> cut_b13 = stacked_w13_b(b13);
  const View cut_a2 = w2_a(a2), cut_b2 = w2_b(b2);
  put_experts("w13_lora_a_stacked.0", {local, rank_rows(fully), in}, {cut_a13});
  put_experts("w2_lora_a_stacked.0", {local, settings_.max_rank, own}, {cut_a2});
  put_experts("w13_lora_b_stacked.0", {local, 2 * own, settings_.max_rank}, cut_b13);
  put_experts("w2_lora_b_stacked.0", {local, fully ? in / settings_.tp : in, settings_.max_rank},
              {cut_b2});
}

}  // namespace moelora::vllm

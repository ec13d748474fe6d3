#include "lib/engine/sglang/copy/slice.h"

#include <fmt/core.h>

#include <algorithm>

namespace moelora::sglang {
namespace {

// Axis of the rows and of the columns: the last two of a stack, 0 and 1 of a matrix.
size_t row_axis(const Sliced& sliced) { return sliced.shape.size() - 2; }
size_t column_axis(const Sliced& sliced) { return sliced.shape.size() - 1; }

Span clamped(int64_t first, int64_t count, int64_t size) {
  const int64_t begin = std::min(first, size);
  return {begin, std::min(first + count, size) - begin};
}

bool needs_matrix(Sliced& sliced) {
  if (sliced.shape.size() >= 2) return true;
  sliced.error_type = "IndexError";
  sliced.error_text =
      fmt::format("too many indices for tensor of dimension {}", sliced.shape.size());
  return false;
}

void cut_columns(Sliced& sliced, int64_t first, int64_t count) {
  if (sliced.shape.empty()) return;
  const size_t axis = column_axis(sliced);
  sliced.columns = clamped(first, count, sliced.shape[axis]);
  sliced.shape[axis] = sliced.columns.count;
}

// Keeps these runs of the rows.
void cut_rows(Sliced& sliced, std::span<const Span> runs) {
  const size_t axis = row_axis(sliced);
  const int64_t size = sliced.shape[axis];
  sliced.run_count = static_cast<int>(runs.size());
  sliced.shape[axis] = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    sliced.runs[i] = clamped(runs[i].first, runs[i].count, size);
    sliced.shape[axis] += sliced.runs[i].count;
  }
}

std::string stack_error(const Sliced& sliced) {
  Shape gate = sliced.shape, up = sliced.shape;
  gate[row_axis(sliced)] = sliced.runs[0].count;
  up[row_axis(sliced)] = sliced.runs[1].count;
  const auto matrix = [](const Shape& shape) {
    return fmt::format("[{}, {}]", shape[shape.size() - 2], shape[shape.size() - 1]);
  };
  return fmt::format(
      "stack expects each tensor to be equal size, but got {} at entry 0 and {} at entry 1",
      matrix(gate), matrix(up));
}

}  // namespace

Sliced whole(const Staged& staged) {
  Sliced out;
  out.tensor = &staged;
  out.shape = staged.shape;
  if (!staged.shape.empty()) out.columns = {0, staged.shape.back()};
  out.runs[0] = {0, row_count(staged.shape)};
  return out;
}

Sliced slice_dense_a(const ClassModule& module, const Staged& staged, const Rank& rank) {
  Sliced out = whole(staged);
  if (module.kind != LayerKind::row || !needs_matrix(out)) return out;
  const int64_t share = module.in / rank.tp;
  cut_columns(out, rank.tp_rank * share, share);
  return out;
}

std::vector<Span> shares_of(const ClassModule& module, const HfConfig& config, const Rank& rank) {
  std::vector<Span> out;
  const bool split = module.kind == LayerKind::qkv || module.kind == LayerKind::merged ||
                     module.kind == LayerKind::column;
  for (size_t i = 0; i < module.out.size(); ++i) {
    const bool replicated = module.kind == LayerKind::qkv && i > 0 && config.kv_heads < rank.tp;
    const int64_t pieces = !split ? 1 : replicated ? config.kv_heads : rank.tp;
    const int64_t index = !split       ? 0
                          : replicated ? rank.tp_rank / (rank.tp / pieces)
                                       : rank.tp_rank;
    const int64_t share = module.out[i] / pieces;
    out.push_back({index * share, share});
  }
  return out;
}

Sliced slice_dense_b(const ClassModule& module, const HfConfig& config, const Staged& staged,
                     const Rank& rank) {
  Sliced out = whole(staged);
  if (module.kind == LayerKind::row || module.kind == LayerKind::replicated) return out;
  if (!needs_matrix(out)) return out;
  std::vector<Span> runs = shares_of(module, config, rank);
  int64_t before = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    runs[i].first += before;
    before += module.out[i];
  }
  cut_rows(out, runs);
  return out;
}

Sliced slice_moe_a(const ModelClass& model, std::string_view buffer, const Staged& staged,
                   const Rank& rank) {
  Sliced out = whole(staged);
  if (rank.moe_tp <= 1 || buffer != "down_proj_moe") return out;
  const int64_t share = model.intermediate / rank.moe_tp;
  cut_columns(out, rank.moe_tp_rank * share, share);
  return out;
}

Sliced slice_moe_b(const ModelClass& model, const Features& features, std::string_view buffer,
                   const Staged& staged, const Rank& rank) {
  Sliced out = whole(staged);
  if (buffer != "gate_up_proj_moe" || (rank.moe_tp <= 1 && !model.interleaved)) return out;
  if (!features.slices_always && rank.tp <= 1) return out;
  if (!needs_matrix(out)) return out;
  const int64_t share = model.intermediate / rank.moe_tp, first = rank.moe_tp_rank * share;
  if (!model.gated) {
    const Span runs[] = {{first, share}};
    cut_rows(out, runs);
    return out;
  }
  const int64_t half = out.shape[row_axis(out)] / 2;
  const Span runs[] = {{first, share}, {half + first, share}};
  cut_rows(out, runs);
  out.interleaved = model.interleaved;
  if (out.interleaved && out.runs[0].count != out.runs[1].count) {
    out.error_type = "RuntimeError";
    out.error_text = stack_error(out);
  }
  return out;
}

}  // namespace moelora::sglang

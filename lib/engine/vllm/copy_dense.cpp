// set_lora() of everything but the experts.

#include <fmt/format.h>

#include "lib/engine/vllm/copy.h"

namespace moelora::vllm {
namespace {

// This rank's part of `whole` rows that lie on the ranks in `parts` parts.
struct Part {
  int64_t first, end;
};
Part part_of(int64_t whole, int64_t parts, int64_t rank, int64_t tp) {
  const int64_t size = whole / parts, mine = rank / (tp / parts);
  return {mine * size, (mine + 1) * size};
}

}  // namespace

// BaseLinearLayerWithLoRA, LogitsProcessorWithLoRA.
void CopyStep::copy_single(const Module& module, const Lora& lora) {
  if (lora.packed || !lora.has_a() || !lora.has_b()) throw assertion_error();
  View a = model_.a(lora), b = model_.b(lora);
  const Child& child = module.children[0];
  const bool cut = settings_.tp > 1 && module.kind != Kind::logits, column = child.parts > 1,
             row = cut && module.kind == Kind::row;
  expect(a, 1, child.in);
  expect(b, 0, child.out);
  const int64_t max_rank = settings_.max_rank, a_rows = rank_rows(column);
  const int64_t in = row ? child.in / settings_.tp : child.in;
  const int64_t out =
      row && settings_.fully_sharded ? child.out / settings_.tp : child.out / child.parts;
  handle(a);
  if (row) a = a.slice(1, rank_ * in, (rank_ + 1) * in);
  if (a_rows < max_rank) {
    a.size(0);
    a = a.slice(0, rank_ * a_rows, (rank_ + 1) * a_rows);
  }
  handle(b);
  if (cut && out < child.out) {
    if (b.rank() < 2) b.slice(1, 0, 0);  // [first:end, :]
    b = b.slice(0, rank_ * out, (rank_ + 1) * out);
  }
  if (module.kind == Kind::unknown) {
    writes_.push_back({{"lora_a_stacked.0", a.shape}, Shape(a.shape.size()), a.shape, a});
    writes_.push_back({{"lora_b_stacked.0", b.shape}, Shape(b.shape.size()), b.shape, b});
    return;
  }
  put_dense("lora_a_stacked.0", {a_rows, in}, a);
  put_dense("lora_b_stacked.0", {out, max_rank}, b);
}

// VocabParallelEmbeddingWithLoRA: lora_a is held transposed.
void CopyStep::copy_embedding(const Lora& lora) {
  if (lora.packed || !lora.has_a() || !lora.has_b()) throw assertion_error();
  const View a = model_.a(lora), b = model_.b(lora);
  expect(a, 1, server_.spec.vocab);
  expect(b, 0, server_.spec.hidden);
  put_dense("lora_a_stacked.0", {server_.spec.vocab, settings_.max_rank}, a.transpose());
  put_dense("lora_b_stacked.0", {server_.spec.hidden, settings_.max_rank}, b);
}

// MergedColumnParallelLinearWithLoRA: one buffer a slice; None leaves it zero.
void CopyStep::copy_lists(const Module& module, std::vector<std::optional<View>> a,
                          std::vector<std::optional<View>> b) {
  std::vector<int64_t> whole = module.slices;
  if (whole.empty())
    for (const Child& child : module.children) whole.push_back(child.out);
  for (size_t i = 0; i < module.children.size() && module.kind == Kind::merged; ++i) {
    if (a[i]) expect(*a[i], 1, module.children[i].in);
    if (b[i]) expect(*b[i], 0, module.children[i].out);
  }
  if (b.size() != whole.size()) expand_groups(module, a, b);
  const bool sharded = settings_.tp > 1 && module.children[0].parts > 1;
  const int64_t a_rows = rank_rows(sharded), in = module.children[0].in;
  const auto parts = [&](size_t i) {
    return i < module.children.size() ? module.children[i].parts : module.children[0].parts;
  };
  for (size_t i = 0; i < whole.size() && sharded; ++i) {
    if (!a[i]) continue;
    handle(*a[i]);
    if (a_rows < settings_.max_rank) a[i] = a[i]->slice(0, rank_ * a_rows, (rank_ + 1) * a_rows);
  }
  for (size_t i = 0; i < whole.size() && sharded; ++i) {
    if (!b[i]) continue;
    handle(*b[i]);
    if (b[i]->rank() < 2) b[i]->slice(1, 0, 0);  // [first:end, :]
    const Part part = part_of(whole[i], parts(i), rank_, settings_.tp);
    b[i] = b[i]->slice(0, part.first, part.end);
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    const int64_t out = sharded ? whole[i] / parts(i) : whole[i];
    if (a[i]) put_dense(fmt::format("lora_a_stacked.{}", i), {a_rows, in}, *a[i]);
    if (b[i]) put_dense(fmt::format("lora_b_stacked.{}", i), {out, settings_.max_rank}, *b[i]);
  }
}

// expand_packed_lora: in_proj_qkv covers three slices, in_proj_z one.
void CopyStep::expand_groups(const Module& module, std::vector<std::optional<View>>& a,
                             std::vector<std::optional<View>>& b) const {
  std::vector<std::optional<View>> wide_a, wide_b;
  size_t first = 0;
  for (size_t group = 0; group < b.size(); ++group) {
    if (!b[group]) throw none_has_no("shape");
    const int64_t rows = b[group]->size(0);
    size_t end = first;
    int64_t covered = 0;
    while (end < module.slices.size() && covered != rows) covered += module.slices[end++];
    if (covered != rows || end == first)
      throw Raised("ValueError",
                   fmt::format("Cannot determine how to split lora_b with {} rows into {} slices "
                               "with output sizes {} starting from index {}.",
                               rows, module.slices.size(), to_string(module.slices), first));
    for (int64_t row = 0; first < end; row += module.slices[first++]) {
      wide_b.push_back(b[group]->slice(0, row, row + module.slices[first]));
      wide_a.push_back(a[group]);
    }
  }
  if (wide_b.size() != module.slices.size()) throw Raised("IndexError", "list index out of range");
  a = std::move(wide_a);
  b = std::move(wide_b);
}

// MergedColumnParallelLinearVariableSliceWithLoRA: one lora_B is split, its lora_A repeated.
void CopyStep::copy_variable(const Module& module, const Lora& lora) {
  if (lora.packed || !lora.has_a() || !lora.has_b()) throw assertion_error();
  const View whole_a = model_.a(lora), whole_b = model_.b(lora);
  expect(whole_a, 1, module.children[0].in);
  expect(whole_b, 0, module.children[0].out);
  std::vector<std::optional<View>> a(module.slices.size(), whole_a), b;
  int64_t first = 0;
  for (int64_t rows : module.slices) {
    b.push_back(whole_b.slice(0, first, first + rows));
    first += rows;
  }
  copy_lists(module, std::move(a), std::move(b));
}

}  // namespace moelora::vllm

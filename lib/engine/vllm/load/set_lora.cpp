#include "lib/engine/vllm/load/set_lora.h"

#include <fmt/format.h>

#include <algorithm>

namespace moelora::vllm {
namespace {

// Whether `source` exceeds `buffer` in no dim but the rank's: the last of a lora_B, the first that
// is clipped of a lora_A.
bool exceeds_rank_alone(std::string_view attribute, const Shape& source, const Shape& buffer,
                        size_t clipped) {
  if (source.size() != buffer.size()) return false;
  const bool b = attribute.find("_b_") != std::string_view::npos;
  const size_t rank = b ? buffer.size() - 1 : clipped;
  for (size_t d = 0; d < buffer.size(); ++d)
    if (d != rank && source[d] > buffer[d]) return false;
  return source[rank] > buffer[rank];
}

// ---- set_lora() of everything but the experts --------------------------------------------------

using Views = std::vector<std::optional<View>>;

// [first:end, :] of a matrix.
View rows(const View& view, int64_t first, int64_t end) {
  if (view.rank() < 2) view.slice(1, 0, 0);  // raises
  return view.slice(0, first, end);
}

class DenseCopy {
 public:
  DenseCopy(const Loading& load, const Module& module, const Lora& lora, Slot& slot)
      : load_(load),
        settings_(load.server.settings),
        rank_(load.rank),
        module_(module),
        lora_(lora),
        slot_(slot) {}

  void run() {
    if (module_.kind == Kind::merged) return lists(lora_.as, lora_.bs);
    if (lora_.packed || !lora_.has_a() || !lora_.has_b()) throw assertion_error();
    View a = load_.model.a(lora_), b = load_.model.b(lora_);
    slot_.expect(a, 1, child().in);
    slot_.expect(b, 0, child().out);
    if (module_.kind == Kind::variable) return variable(a, b);
    if (module_.kind == Kind::joined && settings_.tp > 1) return joined(a, b);
    if (module_.kind == Kind::row) cut_row(a, b);
    if (module_.kind == Kind::embedding) a = a.transpose();  // as it is held
    if (module_.kind == Kind::unknown)                       // taken as it comes
      slot_.buffers = {{module_.name + ".lora_a_stacked.0", a.shape},
                       {module_.name + ".lora_b_stacked.0", b.shape}};
    copy_slices({a}, {b});
  }

 private:
  const Child& child() const { return module_.children[0]; }
  bool is_sharded() const { return child().parts > 1; }

  // Rows of lora_A on this rank: cut along the rank where column-parallel and fully sharded.
  View cut_a(const View& a) {
    slot_.handle(a);
    if (!settings_.fully_sharded) return a;
    const int64_t count = settings_.max_rank / settings_.tp;
    return a.slice(0, rank_ * count, (rank_ + 1) * count);
  }

  // This rank's part of the slice's rows.
  View cut_b(const View& b, const Slice& slice) {
    slot_.handle(b);
    const int64_t size = slice.rows / slice.parts, mine = rank_ / (settings_.tp / slice.parts);
    return rows(b, mine * size, (mine + 1) * size);
  }

  // RowParallelLinearWithLoRA: columns of A; with fully sharded LoRA rows of B as well.
  void cut_row(View& a, View& b) {
    const int64_t in = child().in / settings_.tp;
    const int64_t out = settings_.fully_sharded ? child().out / settings_.tp : child().out;
    slot_.handle(a);
    if (settings_.tp > 1) a = a.slice(1, rank_ * in, (rank_ + 1) * in);
    slot_.handle(b);
    if (out < child().out) b = rows(b, rank_ * out, (rank_ + 1) * out);
  }

  // MergedColumnParallelLinearVariableSliceWithLoRA: one lora_B is split, its lora_A repeated.
  void variable(const View& a, const View& b) {
    Views bs;
    int64_t first = 0;
    for (int64_t size : module_.slices) {
      bs.emplace_back(b.slice(0, first, first + size));
      first += size;
    }
    copy_slices(Views(module_.slices.size(), a), std::move(bs));
  }

  // ColumnParallelLinearWithLoRA and QKVParallelLinearWithLoRA of a Linear that the adapter knows
  // as one: the rank's part of each slice, one below the other.
  void joined(const View& a, const View& b) {
    slot_.put(".lora_a_stacked.0", {cut_a(a)}, 0);
    std::vector<View> parts;
    slot_.handle(b);
    for (const Slice& slice : slices_of(module_)) {
      const int64_t size = slice.rows / slice.parts;
      const int64_t first = slice.first + rank_ / (settings_.tp / slice.parts) * size;
      parts.push_back(rows(b, first, first + size));
    }
    slot_.put(".lora_b_stacked.0", std::move(parts), 0);
  }

  // MergedColumnParallelLinearWithLoRA: one buffer per slice; None leaves it zero.
  void lists(Views as, Views bs) {
    for (size_t i = 0; i < module_.children.size(); ++i) {
      if (as[i]) slot_.expect(*as[i], 1, module_.children[i].in);
      if (bs[i]) slot_.expect(*bs[i], 0, module_.children[i].out);
    }
    if (!module_.slices.empty() && bs.size() != module_.slices.size()) expand_groups(as, bs);
    copy_slices(std::move(as), std::move(bs));
  }

  void copy_slices(Views as, Views bs) {
    if (is_sharded()) {
      const std::vector<Slice> slices = slices_of(module_);
      for (std::optional<View>& a : as)
        if (a) a = cut_a(*a);
      for (size_t i = 0; i < bs.size(); ++i)
        if (bs[i]) bs[i] = cut_b(*bs[i], slices[i]);
    }
    for (size_t i = 0; i < bs.size(); ++i) {
      if (as[i]) slot_.put(fmt::format(".lora_a_stacked.{}", i), {*as[i]}, 0);
      if (bs[i]) slot_.put(fmt::format(".lora_b_stacked.{}", i), {*bs[i]}, 0);
    }
  }

  // expand_packed_lora: in_proj_qkv covers three slices, in_proj_z one.
  void expand_groups(Views& as, Views& bs) const {
    Views wide_as, wide_bs;
    size_t first = 0;
    for (size_t group = 0; group < bs.size(); ++group) {
      if (!bs[group]) throw none_has_no("shape");
      const size_t end = end_of_group(first, bs[group]->size(0));
      for (int64_t row = 0; first < end; row += module_.slices[first++]) {
        wide_bs.emplace_back(bs[group]->slice(0, row, row + module_.slices[first]));
        wide_as.push_back(as[group]);
      }
    }
    if (wide_bs.size() != module_.slices.size())
      throw Raised("IndexError", "list index out of range");
    as = std::move(wide_as);
    bs = std::move(wide_bs);
  }

  size_t end_of_group(size_t first, int64_t count) const {
    size_t end = first;
    int64_t covered = 0;
    while (end < module_.slices.size() && covered != count) covered += module_.slices[end++];
    if (covered != count || end == first)
      throw Raised("ValueError",
                   fmt::format("Cannot determine how to split lora_b with {} rows into {} slices "
                               "with output sizes {} starting from index {}.",
                               count, module_.slices.size(), to_string(module_.slices), first));
    return end;
  }

  const Loading& load_;
  const Settings& settings_;
  int64_t rank_;
  const Module& module_;
  const Lora& lora_;
  Slot& slot_;
};

}  // namespace

void Slot::handle(const View& factor) { at = {factor.sources, factor.shape, "", {}, false}; }

void Slot::note(const View& factor, Misfit misfit) {
  for (uint32_t source : factor.sources) misfits.emplace_back(source, misfit);
}

void Slot::expect(const View& factor, int64_t dim, int64_t extent) {
  if (extent < 0 || dim >= factor.rank() || factor.dim(dim) == extent) return;
  const bool smaller = factor.dim(dim) < extent;
  note(factor, {smaller, !smaller, false});
}

void Slot::collapsed(const View& factor) { note(factor, {false, false, true}); }

void Slot::put(std::string_view attribute, std::vector<View> parts, size_t clipped) {
  const auto into = std::find_if(buffers.begin(), buffers.end(), [&](const Buffer& buffer) {
    return buffer.name.ends_with(attribute);
  });
  const Shape& buffer = into->shape;
  Shape source = parts.front().shape;
  at = {parts.front().sources, source, into->name, buffer, false};
  for (size_t d = clipped; d < buffer.size(); ++d)
    parts.front().size(static_cast<int64_t>(d));  // raises for want of dims
  for (size_t i = 1; i < parts.size(); ++i) source[clipped] += parts[i].shape[clipped];
  Shape count = buffer;
  for (size_t d = clipped; d < buffer.size(); ++d) count[d] = std::min(buffer[d], source[d]);
  at.only_rank = exceeds_rank_alone(attribute, source, buffer, clipped);
  check_copy(count, source);
  writes.push_back(
      {static_cast<uint32_t>(into - buffers.begin()), clipped, std::move(parts), std::move(count)});
}

void copy_dense(const Loading& load, const Module& module, const Lora& lora, Slot& slot) {
  DenseCopy(load, module, lora, slot).run();
}

}  // namespace moelora::vllm

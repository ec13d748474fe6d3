#include "lib/compare/served_pairs.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "lib/base/cast.h"
#include "lib/base/scale.h"
#include "lib/compare/meant_deltas.h"

namespace moelora {
namespace {

using Places = std::vector<const ServedBlock*>;

bool same_place(const ServedBlock& x, const ServedBlock& y) {
  return std::tie(x.out_first, x.in_first, x.out_step) ==
             std::tie(y.out_first, y.in_first, y.out_step) &&
         x.a.dim(1) == y.a.dim(1) && x.b.dim(0) == y.b.dim(0);
}

std::map<DeltaKey, Places> places_of(std::span<const ServedBlock> blocks, const ModelSpec& spec) {
  const ModuleNames names(spec);
  std::map<DeltaKey, Places> out;
  for (const ServedBlock& block : blocks) {
    const DeltaKey key = block.expert >= 0 ? DeltaKey{block.module, block.layer, block.expert}
                                           : DeltaKey{names.of(block.module), -1, -1};
    Places& places = out[key];
    if (std::none_of(places.begin(), places.end(),
                     [&](const ServedBlock* other) { return same_place(*other, block); }))
      places.push_back(&block);
  }
  return out;
}

// Rows and columns of a delta: the model's, or what the blocks reach where it has no such module.
struct Extent {
  int64_t out = 0, in = 0;
};

Extent extent_of(const DeltaKey& key, const Places& places, const ModelSpec& spec) {
  if (key.expert >= 0)
    for (const Projection p : {Projection::gate, Projection::up, Projection::down})
      if (key.module == projection_name(p)) return {spec.out_dim(p), spec.in_dim(p)};
  if (const LinearSpec* linear = spec.find_linear(key.module)) return {linear->out, linear->in};
  Extent out;
  for (const ServedBlock* block : places) {
    out.out = std::max(out.out, block->out_first + block->out_step * block->b.dim(0));
    out.in = std::max(out.in, block->in_first + block->a.dim(1));
  }
  return out;
}

Tensor in_double(const Tensor& tensor) {
  return tensor.map_sources(
      DType::F64, [](const SourcePtr& source) { return cast_source(source, DType::F64); });
}

// A pair while its blocks are put beside one another.
class Joined {
 public:
  Joined(const Places& places, const Extent& extent) : extent_(extent) {
    scale_ = places.front()->scale;
    is_one_scale_ = std::all_of(places.begin(), places.end(),
                                [&](const ServedBlock* block) { return block->scale == scale_; });
    for (const ServedBlock* block : places) add(*block);
  }

  Delta pair() const {
    const DType a = is_one_scale_ && !a_.empty() ? a_.front().part.dtype() : DType::F64;
    const DType b = is_one_scale_ && !b_.empty() ? b_.front().part.dtype() : DType::F64;
    return {Tensor::assemble(a, {rank_, extent_.in}, a_),
            Tensor::assemble(b, {extent_.out, rank_}, b_), is_one_scale_ ? scale_ : 1.0};
  }

 private:
  void add(const ServedBlock& block) {
    const int64_t r = block.a.dim(0);
    const int64_t columns = std::clamp<int64_t>(extent_.in - block.in_first, 0, block.a.dim(1));
    const Tensor a = is_one_scale_ ? block.a : in_double(block.a);
    const Tensor b = is_one_scale_ ? block.b : scaler_.scaled(in_double(block.b), block.scale);
    if (columns > 0 && r > 0) a_.push_back({a.slice(1, 0, columns), {rank_, block.in_first}});
    if (r > 0) add_rows(b, block);
    rank_ += r;
  }

  void add_rows(const Tensor& b, const ServedBlock& block) {
    if (block.out_step == 1) {
      const int64_t rows = std::clamp<int64_t>(extent_.out - block.out_first, 0, b.dim(0));
      if (rows > 0) b_.push_back({b.slice(0, 0, rows), {block.out_first, rank_}});
      return;
    }
    for (int64_t i = 0; i < b.dim(0); ++i)
      if (const int64_t row = block.out_first + i * block.out_step; row < extent_.out)
        b_.push_back({b.slice(0, i, 1), {row, rank_}});
  }

  Extent extent_;
  bool is_one_scale_ = true;
  double scale_ = 1;
  int64_t rank_ = 0;
  std::vector<PlacedTensor> a_, b_;
  Scaler scaler_;
};

}  // namespace

Deltas served_pairs(std::span<const ServedBlock> blocks, const ModelSpec& spec) {
  Deltas out;
  for (const auto& [key, places] : places_of(blocks, spec))
    out.emplace(key, Joined(places, extent_of(key, places, spec)).pair());
  return out;
}

}  // namespace moelora

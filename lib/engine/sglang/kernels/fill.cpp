#include "lib/engine/sglang/kernels/fill.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/error.h"

namespace moelora::sglang {
namespace {

// Stacked tensors come one expert at a time: runs of experts are one box again.
bool extends(const Write& last, int64_t experts, const Write& next) {
  if (next.expert != last.expert + experts || next.source_expert != last.source_expert + experts)
    return false;
  Write moved = next;
  moved.expert = last.expert;
  moved.source_expert = last.source_expert;
  return moved.source_expert >= 0 && moved.source == last.source && moved.row == last.row &&
         moved.column == last.column && moved.rows == last.rows && moved.columns == last.columns &&
         moved.source_row == last.source_row && moved.source_column == last.source_column &&
         moved.row_step == last.row_step && moved.scaled == last.scaled;
}

// One buffer, by its writes.
class Assembly {
 public:
  explicit Assembly(const Shape& shape) : shape_(shape) {}

  const Shape& shape() const { return shape_; }

  void add(const Write& write) {
    for (size_t i = runs_.size(); i-- > 0 && runs_.size() - i <= kAlternating;)
      if (extends(runs_[i].write, runs_[i].experts, write)) {
        ++runs_[i].experts;
        return;
      }
    runs_.push_back({write, 1});
  }

  // Put together as [experts, step, rows / step, columns], where every step-th row is next to the
  // one before.
  Tensor tensor(PoolValues& values) const {
    const int64_t step = runs_.empty() ? 1 : runs_.front().write.row_step;
    const Shape split{shape_.size() == 3 ? shape_[0] : 1, step, shape_[shape_.size() - 2] / step,
                      shape_.back()};
    std::vector<PlacedTensor> parts;
    parts.reserve(runs_.size());
    for (const Run& run : runs_) parts.push_back(placed(run, values));
    return Tensor::assemble(DType::BF16, split, parts).transpose(1, 2).reshape(shape_);
  }

 private:
  static constexpr size_t kAlternating = 2;  // gate and up, one after the other

  struct Run {
    Write write;
    int64_t experts;
  };

  static PlacedTensor placed(const Run& run, PoolValues& values) {
    const Write& w = run.write;
    Tensor box = values.of(w.source, w.scaled);
    box = w.source_expert >= 0 ? box.slice(0, w.source_expert, run.experts) : box.unsqueeze(0);
    box = box.slice(1, w.source_row, w.rows).slice(2, w.source_column, w.columns).unsqueeze(1);
    return {std::move(box),
            {std::max<int64_t>(w.expert, 0), w.row % w.row_step, w.row / w.row_step, w.column}};
  }

  Shape shape_;
  std::vector<Run> runs_;
};

// A config may ask for more than there are bytes.
void check_size(const std::string& name, const Shape& shape) {
  constexpr uint64_t kMostElements = uint64_t{1} << 48;
  std::optional<uint64_t> elements = 1;
  for (int64_t extent : shape)
    if (elements) elements = checked_mul(*elements, static_cast<uint64_t>(extent));
  if (!elements || *elements > kMostElements)
    throw Error(name, fmt::format("a buffer of {} is too large to be real", to_string(shape)),
                "look at the base's config.json and at --max-lora-rank");
}

class Collector : public WriteSink {
 public:
  Collector(const Server& server, const Pool& pool) {
    const auto& layers = server.wrapping().layers;
    for (size_t layer = 0; layer < layers.size(); ++layer)
      for (const WrappedModule& wrapped : layers[layer]) {
        const Buffer& buffer = *pool.find(wrapped.buffer);
        add(buffer.name, static_cast<int>(layer), buffer.a[layer], buffer.b[layer]);
      }
    for (const EmbeddingBuffer& buffer : pool.embeddings)
      if (buffer.name == "embed_tokens" ? server.wrapping().embed_tokens
                                        : server.wrapping().lm_head)
        add(buffer.name, -1, buffer.a, buffer.b);
  }

  void write(const Write& write) override {
    const auto at = buffers_.find({write.layer, write.buffer, write.is_a});
    if (at != buffers_.end()) at->second.add(write);
  }

  TensorMap tensors(PoolValues& values) const {
    TensorMap out;
    for (const auto& [key, assembly] : buffers_) {
      const std::string stem = key.layer < 0 ? "" : fmt::format("layers.{}.", key.layer);
      const std::string name = fmt::format("{}{}.{}", stem, key.buffer, key.is_a ? "A" : "B");
      check_size(name, assembly.shape());
      out.emplace(name, assembly.tensor(values));
    }
    return out;
  }

 private:
  struct Key {
    int layer;
    std::string_view buffer;  // of the pool
    bool is_a;
    friend auto operator<=>(const Key&, const Key&) = default;
  };

  void add(std::string_view name, int layer, const Shape& a, const Shape& b) {
    buffers_.try_emplace({layer, name, true}, a);
    buffers_.try_emplace({layer, name, false}, b);
  }

  std::map<Key, Assembly> buffers_;
};

}  // namespace

TensorMap fill_pool(const Server& server, size_t index, const Pool& pool, PoolValues& values) {
  Collector collector(server, pool);
  server.writes(index, pool, collector);
  return collector.tensors(values);
}

}  // namespace moelora::sglang

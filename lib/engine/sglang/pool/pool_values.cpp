#include "lib/engine/sglang/pool/pool_values.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "lib/base/cast.h"
#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/engine/sglang/copy/load_to_buffer.h"
#include "lib/engine/sglang/plan.h"
#include "lib/engine/sglang/start.h"

namespace moelora::sglang {
namespace {

template <class T>
void multiply(std::byte* values, int64_t count, T factor) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::byte* at = values + static_cast<size_t>(i) * sizeof value;
    std::memcpy(&value, at, sizeof value);
    value *= factor;
    std::memcpy(at, &value, sizeof value);
  }
}

void set_nans(std::byte* bf16, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, bf16 + 2 * i, 2);
    bits = (bits & 0x7FFFU) > 0x7F80U ? uint16_t{0x7FFF} : bits;
    std::memcpy(bf16 + 2 * i, &bits, 2);
  }
}

class PoolSource final : public ComputedSource {
 public:
  PoolSource(const SourcePtr& inner, std::optional<double> scale)
      : ComputedSource(inner, DType::BF16, inner->elements()), scale_(scale) {
    if (!is_float(inner_->dtype()))
      throw Error(inner_->where(), fmt::format("{} in SGLang's BF16 pool is not followed here",
                                               dtype_name(inner_->dtype())));
  }

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const int64_t granule = inner_->granule();
    const int64_t chunk = (kChunk + granule - 1) / granule * granule;
    const auto most = static_cast<size_t>(std::min(chunk, count));
    std::vector<std::byte> stored(most * static_cast<size_t>(dtype_bytes(inner_->dtype())));
    std::vector<std::byte> wide(most * sizeof(float));
    for (int64_t at = 0; at < count; at += chunk) {
      const int64_t n = std::min(chunk, count - at);
      inner_->read(first + at, n, stored.data());
      convert(n, stored.data(), wide.data(), out + 2 * at);
    }
  }

  std::string change() const override {
    std::string text = inner_->change();
    const auto add = [&](const std::string& step) { text += (text.empty() ? "" : ", ") + step; };
    if (scale_) add(fmt::format("scaled by {}", *scale_));
    if (inner_->dtype() != DType::BF16)
      add(fmt::format("cast {} to BF16", dtype_name(inner_->dtype())));
    return text;
  }

 private:
  static constexpr int64_t kChunk = int64_t{1} << 16;

  void convert(int64_t count, std::byte* stored, std::byte* wide, std::byte* out) const {
    if (scale_) multiply_stored(count, stored, wide);
    cast_elements(inner_->dtype(), DType::F32, count, stored, wide);
    cast_elements(DType::F32, DType::BF16, count, wide, out);
    set_nans(out, count);
  }

  // In F32 (F64 for F64), rounded to the type of the file.
  void multiply_stored(int64_t count, std::byte* stored, std::byte* wide) const {
    const DType dtype = inner_->dtype();
    if (dtype == DType::F64) return multiply<double>(stored, count, *scale_);
    cast_elements(dtype, DType::F32, count, stored, wide);
    multiply<float>(wide, count, static_cast<float>(*scale_));
    cast_elements(DType::F32, dtype, count, wide, stored);
  }

  std::optional<double> scale_;
};

const TensorMap& tensors_of(const std::string& file, const ServedAdapter& served,
                            const std::vector<TensorMap>& values) {
  for (size_t i = 0; i < served.files.size() && i < values.size(); ++i)
    if (served.files[i].name == file) return values[i];
  throw Error(file, "no values are given of this file");
}

SourcePtr pool_source(SourcePtr source, double scale) {
  if (scale == 1 && source->dtype() == DType::BF16) return source;
  return std::make_shared<PoolSource>(std::move(source),
                                      scale == 1 ? std::nullopt : std::optional(scale));
}

// The tensors of an adapter's files as its pool holds them.
class PoolValues {
 public:
  PoolValues(const CpuAdapter& adapter, const ServedAdapter& served,
             const std::vector<TensorMap>& values)
      : adapter_(adapter) {
    for (const std::string& file : adapter.files)
      files_.push_back(&tensors_of(file, served, values));
  }

  // Of the adapter's source `id`; `scaled`: multiplied by the adapter's scale.
  const Tensor& of(int32_t id, bool scaled) {
    const auto [at, is_new] = tensors_.try_emplace({id, scaled});
    if (is_new)
      at->second = in_file(id).map_sources(DType::BF16, [&](const SourcePtr& source) {
        SourcePtr& made = sources_[{source, scaled}];
        if (!made) made = pool_source(source, scaled ? adapter_.scale() : 1);
        return made;
      });
    return at->second;
  }

 private:
  const Tensor& in_file(int32_t id) const {
    const Source& source = adapter_.source(id);
    const TensorMap& tensors = *files_[source.file];
    const auto found = tensors.find(source.name);
    if (found == tensors.end() || found->second.shape() != source.shape)
      throw Error(source.name, "is not what the adapter's headers said");
    return found->second;
  }

  const CpuAdapter& adapter_;
  std::vector<const TensorMap*> files_;  // by index in the adapter's list of files
  std::map<std::pair<int32_t, bool>, Tensor> tensors_;
  std::map<std::pair<SourcePtr, bool>, SourcePtr> sources_;
};

// Stacked tensors come one expert at a time: runs of experts are one box again.
bool extends(const Write& last, int64_t experts, const Write& next) {
  Write expected = last;
  expected.expert += experts;
  expected.source_expert += experts;
  return last.source_expert >= 0 && next == expected;
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
    const auto at = buffers_.find(buffer_name(write.layer, write.buffer, write.is_a));
    if (at != buffers_.end()) at->second.add(write);
  }

  TensorMap tensors(PoolValues& values) const {
    TensorMap out;
    for (const auto& [name, assembly] : buffers_) {
      check_size(name, assembly.shape());
      out.emplace(name, assembly.tensor(values));
    }
    return out;
  }

 private:
  void add(std::string_view name, int layer, const Shape& a, const Shape& b) {
    buffers_.try_emplace(buffer_name(layer, name, true), a);
    buffers_.try_emplace(buffer_name(layer, name, false), b);
  }

  std::map<std::string, Assembly> buffers_;
};

}  // namespace

TensorMap fill_pool(const Server& server, size_t index, const Pool& pool,
                    const ServedAdapter& served, const std::vector<TensorMap>& values) {
  Collector collector(server, pool);
  CpuAdapter adapter = server.adapter(index);  // a copy: what is refused is known already
  load_to_buffer({adapter, server.model(), server.features(), server.wrapping(), collector},
                 {&pool, 1}, false);
  PoolValues pool_values(adapter, served, values);
  return collector.tensors(pool_values);
}

RankBuffers fill_rank(const BufferRequest& request) {
  const PlanRequest plan = request.plan();
  Server server = start_server(plan);
  if (server.count() > 0) plan_adapter(server, 0, plan);
  if (const Refusal* refusal = server.first_refusal()) return {*refusal, {}};
  return {std::nullopt,
          fill_pool(server, 0, server.pool_of(request.tp_rank), request.adapter, request.values)};
}

}  // namespace moelora::sglang

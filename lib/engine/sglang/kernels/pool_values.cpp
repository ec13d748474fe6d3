#include "lib/engine/sglang/kernels/pool_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "lib/base/cast.h"
#include "lib/base/error.h"

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

class PoolSource final : public moelora::Source {
 public:
  PoolSource(SourcePtr inner, std::optional<double> scale)
      : moelora::Source(DType::BF16, inner->elements()), inner_(std::move(inner)), scale_(scale) {
    if (!is_float(inner_->dtype()))
      throw Error(inner_->where(), fmt::format("{} in SGLang's BF16 pool is not followed here",
                                               dtype_name(inner_->dtype())));
  }

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const int64_t granule = inner_->granule();
    const int64_t chunk = (kChunk + granule - 1) / granule * granule;
    Scratch scratch;
    for (int64_t at = 0; at < count; at += chunk)
      fill(first + at, std::min(chunk, count - at), out + 2 * at, scratch);
  }

  int64_t granule() const override { return inner_->granule(); }
  std::string where() const override { return inner_->where(); }
  std::vector<std::string> inputs() const override { return inner_->inputs(); }

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

  struct Scratch {
    std::vector<std::byte> stored, wide;

    std::byte* of(std::vector<std::byte>& bytes, int64_t count, DType dtype) {
      bytes.resize(static_cast<size_t>(count) * static_cast<size_t>(dtype_bytes(dtype)));
      return bytes.data();
    }
  };

  // Through F32 (F64 for F64), in which the product is taken.
  void fill(int64_t first, int64_t count, std::byte* out, Scratch& scratch) const {
    const DType dtype = inner_->dtype();
    std::byte* stored = scratch.of(scratch.stored, count, dtype);
    inner_->read(first, count, stored);
    if (scale_) multiply_stored(dtype, stored, count, scratch);
    if (dtype == DType::F64) {
      std::byte* wide = scratch.of(scratch.wide, count, DType::F32);
      cast_elements(DType::F64, DType::F32, count, stored, wide);
      cast_elements(DType::F32, DType::BF16, count, wide, out);
    } else {
      cast_elements(dtype, DType::BF16, count, stored, out);
    }
    set_nans(out, count);
  }

  void multiply_stored(DType dtype, std::byte* stored, int64_t count, Scratch& scratch) const {
    if (dtype == DType::F64) return multiply<double>(stored, count, *scale_);
    const auto factor = static_cast<float>(*scale_);
    if (dtype == DType::F32) return multiply<float>(stored, count, factor);
    std::byte* wide = scratch.of(scratch.wide, count, DType::F32);
    cast_elements(dtype, DType::F32, count, stored, wide);
    multiply<float>(wide, count, factor);
    cast_elements(DType::F32, dtype, count, wide, stored);
  }

  SourcePtr inner_;
  std::optional<double> scale_;
};

const TensorMap& tensors_of(const std::string& file, const ServedAdapter& served,
                            const std::vector<TensorMap>& values) {
  for (size_t i = 0; i < served.files.size() && i < values.size(); ++i)
    if (served.files[i].name == file) return values[i];
  throw Error(file, "no values are given of this file");
}

}  // namespace

SourcePtr pool_source(SourcePtr source) {
  if (source->dtype() == DType::BF16) return source;
  return std::make_shared<PoolSource>(std::move(source), std::nullopt);
}

SourcePtr scaled_pool_source(SourcePtr source, double scale) {
  if (scale == 1) return pool_source(std::move(source));
  return std::make_shared<PoolSource>(std::move(source), scale);
}

PoolValues::PoolValues(const CpuAdapter& adapter, const ServedAdapter& served,
                       const std::vector<TensorMap>& values)
    : adapter_(adapter) {
  for (const std::string& file : adapter.files) files_.push_back(&tensors_of(file, served, values));
}

const Tensor& PoolValues::of(int32_t id, bool scaled) {
  const auto [at, is_new] = tensors_.try_emplace({id, scaled});
  if (is_new)
    at->second = in_file(id).map_sources(DType::BF16, [&](const SourcePtr& source) {
      SourcePtr& made = sources_[{source, scaled}];
      if (!made) made = scaled ? scaled_pool_source(source, adapter_.scale()) : pool_source(source);
      return made;
    });
  return at->second;
}

const Tensor& PoolValues::in_file(int32_t id) const {
  const Source& source = adapter_.sources[static_cast<size_t>(id)];
  const TensorMap& tensors = *files_[source.file];
  const auto found = tensors.find(source.name);
  if (found == tensors.end() || found->second.shape() != source.shape)
    throw Error(source.name, "is not what the adapter's headers said");
  return found->second;
}

}  // namespace moelora::sglang

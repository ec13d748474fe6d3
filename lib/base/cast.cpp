#include "lib/base/cast.h"

#include <algorithm>
#include <map>

#include "lib/base/error.h"

namespace moelora {
namespace {

class CastSource final : public Source {
 public:
  CastSource(SourcePtr inner, DType to) : Source(to, inner->elements()), inner_(std::move(inner)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const int64_t granule = inner_->granule();
    const int64_t chunk = (kChunk + granule - 1) / granule * granule;
    const auto in_width = static_cast<size_t>(dtype_bytes(inner_->dtype()));
    std::vector<std::byte> held(static_cast<size_t>(std::min(count, chunk)) * in_width);
    for (int64_t at = 0; at < count; at += chunk) {
      const int64_t n = std::min(chunk, count - at);
      inner_->read(first + at, n, held.data());
      cast_elements(inner_->dtype(), dtype(), n, held.data(), out + at * dtype_bytes(dtype()));
    }
  }

  int64_t granule() const override { return inner_->granule(); }
  std::string where() const override { return inner_->where(); }
  std::vector<std::string> inputs() const override { return inner_->inputs(); }

  std::string change() const override {
    std::string text = inner_->change();
    if (!text.empty()) text += ", ";
    text += "cast " + std::string(dtype_name(inner_->dtype())) + " to " +
            std::string(dtype_name(dtype()));
    return cast_is_exact(inner_->dtype(), dtype()) ? text + " (exact)" : text;
  }

 private:
  static constexpr int64_t kChunk = int64_t{1} << 17;
  SourcePtr inner_;
};

void require_float(DType dtype, const std::string& where) {
  if (!is_float(dtype))
    throw Error(where, "cannot cast " + std::string(dtype_name(dtype)) +
                           ", only F64, F32, F16 and BF16 convert into each other");
}

}  // namespace

bool cast_is_exact(DType from, DType to) {
  return from == to || to == DType::F64 || (to == DType::F32 && from != DType::F64);
}

SourcePtr cast_source(SourcePtr source, DType to) {
  if (source->dtype() == to) return source;
  require_float(source->dtype(), source->where());
  require_float(to, source->where());
  return std::make_shared<CastSource>(std::move(source), to);
}

TensorMap cast_tensors(const TensorMap& tensors, DType to) {
  require_float(to, "cast");
  std::map<SourcePtr, SourcePtr> done;
  const auto cast = [&](const SourcePtr& source) {
    SourcePtr& slot = done[source];
    if (!slot) slot = cast_source(source, to);
    return slot;
  };
  TensorMap out;
  for (const auto& [name, tensor] : tensors)
    out.emplace(name, is_float(tensor.dtype()) ? tensor.map_sources(to, cast) : tensor);
  return out;
}

std::vector<double> read_double(const Tensor& tensor) {
  require_float(tensor.dtype(), "tensor");
  const std::vector<std::byte> bytes = tensor.read();
  std::vector<double> out(static_cast<size_t>(tensor.elements()));
  cast_elements(tensor.dtype(), DType::F64, tensor.elements(), bytes.data(),
                reinterpret_cast<std::byte*>(out.data()));
  return out;
}

}  // namespace moelora

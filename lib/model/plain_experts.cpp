#include "lib/model/plain_experts.h"

#include <fmt/format.h>

#include <cstring>

#include "lib/model/expert_storage.h"
#include "lib/model/mxfp4_decode.h"
#include "lib/model/rename.h"

namespace moelora {
namespace {

std::string name_of(const ExpertStorage& storage, Projection projection) {
  for (const StoredProjection& p : stored_projections(storage)) {
    if (p.projection == projection) return p.name;
  }
  return {};
}

std::string numbered_name(const ExpertStorage& storage, const WhichExpert& w,
                          std::string_view what) {
  return fmt::format("{}.{}.{}.{}", with_layer(storage.stem, w.layer), w.expert,
                     name_of(storage, w.projection), what);
}

std::string batched_name(const ExpertStorage& storage, const WhichExpert& w, bool& fused) {
  fused = w.projection != Projection::down && !storage.gate_up.empty();
  return fmt::format("{}.{}", with_layer(storage.stem, w.layer),
                     name_of(storage, fused ? Projection::gate_up : w.projection));
}

}  // namespace

std::vector<ExpertStorage> PlainExperts::storages() const {
  return {per_expert_storage(spec_), spec_.hub, spec_.memory};
}

bool PlainExperts::has_layer(int layer) const {
  return weight({layer, 0, Projection::down}).has_value();
}

std::optional<ExpertMatrix> PlainExperts::weight(const WhichExpert& w) const {
  for (const ExpertStorage& storage : storages()) {
    if (storage.numbered) {
      if (auto found = whole(numbered_name(storage, w, "weight"))) return found;
    } else if (auto found = batched(storage, w)) {
      return found;
    }
  }
  return std::nullopt;
}

std::optional<ExpertMatrix> PlainExperts::bias(const WhichExpert& w) const {
  for (const ExpertStorage& storage : storages()) {
    if (storage.numbered) {
      if (auto found = whole(numbered_name(storage, w, "bias"))) return found;
      continue;
    }
    bool fused = false;
    const std::string name = batched_name(storage, w, fused) + "_bias";
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) continue;
    const Tensor row = found->second.select(0, w.expert);
    return pick(row.dtype(), row.read(), w, fused, 1, false);
  }
  return std::nullopt;
}

std::optional<ExpertMatrix> PlainExperts::whole(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return std::nullopt;
  return ExpertMatrix{found->second.dtype(), found->second.read()};
}

std::optional<ExpertMatrix> PlainExperts::batched(const ExpertStorage& storage,
                                                  const WhichExpert& w) const {
  bool fused = false;
  const std::string name = batched_name(storage, w, fused);
  const int64_t columns = spec_.in_dim(w.projection);
  if (tensors_.count(name + "_blocks") != 0) {
    return pick(DType::BF16, decoded(name, w.expert), w, fused, columns, false);
  }
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return std::nullopt;
  const Tensor slice = found->second.select(0, w.expert);
  return pick(slice.dtype(), slice.read(), w, fused, columns, storage.axes == ExpertAxes::in_out);
}

std::vector<std::byte> PlainExperts::decoded(const std::string& name, int64_t expert) const {
  const auto blocks = tensors_.at(name + "_blocks").select(0, expert).read();
  const auto scales = tensors_.at(name + "_scales").select(0, expert).read();
  std::vector<std::byte> out(scales.size() * kMxfp4Block * 2);
  mxfp4_decode_simple(reinterpret_cast<const uint8_t*>(blocks.data()),
                      reinterpret_cast<const uint8_t*>(scales.data()),
                      static_cast<int64_t>(scales.size()), reinterpret_cast<uint16_t*>(out.data()));
  return out;
}

// Rows of one projection out of an expert's [rows, columns] or, with in_out, [columns, rows].
ExpertMatrix PlainExperts::pick(DType dtype, const std::vector<std::byte>& from,
                                const WhichExpert& w, bool fused, int64_t columns,
                                bool in_out) const {
  const int64_t rows = spec_.out_dim(w.projection), all_rows = fused ? 2 * rows : rows;
  const bool interleaved = spec_.gate_up_order == GateUpOrder::interleaved;
  const int64_t second = w.projection == Projection::up ? 1 : 0;
  const auto width = static_cast<size_t>(dtype_bytes(dtype));
  ExpertMatrix out = {dtype, std::vector<std::byte>(static_cast<size_t>(rows * columns) * width)};
  std::byte* to = out.bytes.data();
  const size_t run = in_out ? width : width * static_cast<size_t>(columns);  // contiguous bytes
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = !fused ? r : interleaved ? 2 * r + second : second * rows + r;
    for (int64_t c = 0; c < columns; c += in_out ? 1 : columns, to += run) {
      const int64_t at = in_out ? c * all_rows + row : row * columns + c;
      std::memcpy(to, from.data() + static_cast<size_t>(at) * width, run);
    }
  }
  return out;
}

}  // namespace moelora

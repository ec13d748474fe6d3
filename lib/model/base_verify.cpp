#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/model/base_convert.h"
#include "lib/model/mxfp4.h"
#include "lib/model/rename.h"

namespace moelora {
namespace {

std::string name_of(const ExpertStorage& storage, Projection projection) {
  for (const StoredProjection& p : stored_projections(storage))
    if (p.projection == projection) return p.name;
  return {};
}

// Rows of one projection out of an expert's [rows, columns] or, with in_out, [columns, rows].
ExpertMatrix pick(const ModelSpec& spec, const ExpertStorage& storage, DType dtype,
                  const std::vector<std::byte>& from, const WhichExpert& w, bool fused,
                  int64_t columns, bool in_out) {
  const int64_t rows = spec.out_dim(w.projection), all_rows = fused ? 2 * rows : rows;
  const bool interleaved = required_gate_up_order(spec, storage) == GateUpOrder::interleaved;
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

}  // namespace

bool PlainExperts::has_layer(int layer) const {
  return weight({layer, 0, Projection::down}).has_value();
}

std::optional<ExpertMatrix> PlainExperts::find(const WhichExpert& w, bool bias) const {
  for (const ExpertStorage& storage : {per_expert_storage(spec_), spec_.hub, spec_.memory})
    if (auto found = storage.numbered ? numbered(storage, w, bias) : batched(storage, w, bias))
      return found;
  return std::nullopt;
}

std::optional<ExpertMatrix> PlainExperts::numbered(const ExpertStorage& storage,
                                                   const WhichExpert& w, bool bias) const {
  const auto found =
      tensors_.find(fmt::format("{}.{}.{}.{}", with_layer(storage.stem, w.layer), w.expert,
                                name_of(storage, w.projection), bias ? "bias" : "weight"));
  if (found == tensors_.end()) return std::nullopt;
  return ExpertMatrix{found->second.dtype(), found->second.read()};
}

std::optional<ExpertMatrix> PlainExperts::batched(const ExpertStorage& storage,
                                                  const WhichExpert& w, bool bias) const {
  const bool fused = w.projection != Projection::down && !storage.gate_up.empty();
  const std::string name = fmt::format("{}.{}{}", with_layer(storage.stem, w.layer),
                                       name_of(storage, fused ? Projection::gate_up : w.projection),
                                       bias ? "_bias" : "");
  const int64_t columns = bias ? 1 : spec_.in_dim(w.projection);
  if (tensors_.contains(name + "_blocks"))
    return pick(spec_, storage, DType::BF16, decoded(name, w.expert), w, fused, columns, false);
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return std::nullopt;
  if (!bias && storage.axes == ExpertAxes::rows) {
    const int64_t width = spec_.intermediate;
    const Tensor rows = found->second.slice(0, w.expert * width, width);
    return pick(spec_, storage, rows.dtype(), rows.read(), w, false, columns,
                w.projection == Projection::down);
  }
  const Tensor slice = found->second.select(0, w.expert);
  return pick(spec_, storage, slice.dtype(), slice.read(), w, fused, columns,
              !bias && axes_in(tensors_, spec_, storage, w.layer) == ExpertAxes::in_out);
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

namespace {

// `bytes` as `to`, when they are of another type.
std::vector<std::byte> cast_bytes(DType from, DType to, std::vector<std::byte> bytes) {
  if (from == to) return bytes;
  const size_t count = bytes.size() / static_cast<size_t>(dtype_bytes(from));
  std::vector<std::byte> out(count * static_cast<size_t>(dtype_bytes(to)));
  cast_elements(from, to, static_cast<int64_t>(count), bytes.data(), out.data());
  return out;
}

class Verifier {
 public:
  Verifier(const TensorMap& in, const TensorMap& out, const ModelSpec& spec,
           const std::string& where)
      : in_(in), out_(out), spec_(spec), where_(where), expected_(in, spec), found_(out, spec) {}

  int64_t run(int threads) {
    const SplitExperts in = split_experts(in_, spec_, where_);
    const SplitExperts out = split_experts(out_, spec_, where_);
    const auto items = expert_items(out.experts);
    parallel_for(static_cast<int64_t>(items.size()), worker_limit(threads),
                 [&](int64_t i, int) { compare_expert(items[static_cast<size_t>(i)]); });
    for (const auto& [name, tensor] : out.rest) compare_tensor(name, in.rest, tensor);
    for (const auto& [name, tensor] : in.rest) check_kept(name, out.rest);
    for (const ExpertLayer& experts : in.experts) check_layer(experts.layer);
    return compared_;
  }

 private:
  // An expert's matrices are held whole; no more of them at once than fit some 256 MB.
  int worker_limit(int threads) const {
    const int64_t held = std::max<int64_t>(1, spec_.expert_in * spec_.intermediate * 24);
    const auto fits = static_cast<int>(std::clamp<int64_t>((int64_t{256} << 20) / held, 1, 64));
    return std::min(threads > 0 ? threads : available_threads(), fits);
  }

  std::vector<WhichExpert> expert_items(const std::vector<ExpertLayer>& layers) const {
    std::vector<WhichExpert> out;
    for (const ExpertLayer& experts : layers) {
      for (int64_t e = 0; e < spec_.experts; ++e) {
        for (const Projection p : {Projection::gate, Projection::up, Projection::down})
          if (p != Projection::gate || spec_.gated) out.push_back({experts.layer, e, p});
      }
    }
    return out;
  }

  void compare_expert(const WhichExpert& w) {
    compare(w, "weight", expected_.weight(w), found_.weight(w));
    if (spec_.expert_bias) compare(w, "bias", expected_.bias(w), found_.bias(w));
  }

  void compare(const WhichExpert& w, std::string_view what, std::optional<ExpertMatrix> expected,
               std::optional<ExpertMatrix> found) {
    const std::string name = fmt::format("{} of layer {}, expert {}, {}", what, w.layer, w.expert,
                                         projection_name(w.projection));
    if (!expected || !found) fail(name, found ? "is not in the input" : "is missing");
    const auto bytes = cast_bytes(expected->dtype, found->dtype, std::move(expected->bytes));
    if (bytes != found->bytes) fail(name, "differs from the input");
    ++compared_;
  }

  void compare_tensor(const std::string& name, const TensorMap& inputs, const Tensor& found) {
    const auto expected = inputs.find(name);
    if (expected == inputs.end()) fail(name, "is not in the input");
    if (expected->second.shape() != found.shape()) fail(name, "has another shape than the input's");
    if (dtype_bits(found.dtype()) % 8 != 0) {  // cannot be sliced
      if (expected->second.read() != found.read()) fail(name, "differs from the input");
      ++compared_;
      return;
    }
    constexpr int64_t kRows = int64_t{4} << 20;  // elements compared at a time
    const Tensor a = expected->second.reshape({expected->second.elements()}),
                 b = found.reshape({found.elements()});
    for (int64_t at = 0; at < b.elements(); at += kRows) {
      const int64_t n = std::min(kRows, b.elements() - at);
      if (cast_bytes(a.dtype(), b.dtype(), a.slice(0, at, n).read()) != b.slice(0, at, n).read())
        fail(name, "differs from the input");
    }
    ++compared_;
  }

  bool has_layer(int layer) const {
    const std::string stem = layer_stem(spec_);
    return std::any_of(out_.begin(), out_.end(), [&](const auto& entry) {
      return split_stem(entry.first, stem).first == layer;
    });
  }

  void check_kept(const std::string& name, const TensorMap& out) const {
    if (out.count(name) != 0) return;
    const int layer = split_stem(name, layer_stem(spec_)).first;
    if (layer < 0 || has_layer(layer)) fail(name, "is missing");
  }

  void check_layer(int layer) const {
    if (found_.has_layer(layer) || !has_layer(layer)) return;
    fail(fmt::format("experts of layer {}", layer), "are missing");
  }

  [[noreturn]] void fail(const std::string& what, const std::string& how) const {
    throw Error(in_file(where_, what), "verification failed: " + how,
                "do not use this output; convert again, and report this if it stays");
  }

  const TensorMap &in_, &out_;
  const ModelSpec& spec_;
  const std::string& where_;
  PlainExperts expected_, found_;
  std::atomic<int64_t> compared_ = 0;
};

}  // namespace

int64_t verify_base(const TensorMap& in, const TensorMap& out, const ModelSpec& spec, int threads,
                    const std::string& where) {
  return Verifier(in, out, spec, where).run(threads);
}

}  // namespace moelora
